"""Run MemoryWAM bundles on a robot, without torch and without onnx."""
