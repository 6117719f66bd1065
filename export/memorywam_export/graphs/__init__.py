"""The split: graphs with explicit memory, their exact rewrites, and ONNX."""
