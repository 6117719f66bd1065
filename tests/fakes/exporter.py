"""What torch's exporter works out again for every graph, and need not."""

import functools
import importlib

__all__ = ["torchlib_once"]


@functools.cache
def torchlib_once() -> None:
    """Have the table of operators read once a process: a fifth of the time of an export.

    It is made of the sources of 500 functions, anew for each graph, and is always the same.
    """
    # Imported here: it loads torch. The name is not in what stands for the module, but in what
    # that loads when asked: set there, it is found first.
    apis = importlib.import_module("torch.onnx._internal._lazy_import").onnxscript_apis
    apis.get_torchlib_ops = functools.cache(apis.get_torchlib_ops)
