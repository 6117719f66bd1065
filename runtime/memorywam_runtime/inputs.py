"""What the host writes into a graph: looked up once, sent without allocating."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.backends import Array, Backend
from memorywam_runtime.tensors import TensorSpec

__all__ = ["HostInput"]


class HostInput:
    """One input of a graph that the host writes, with a host copy in the input's type."""

    def __init__(self, backend: Backend, spec: TensorSpec, array: Array) -> None:
        self.spec = spec
        self.array = array
        self.host: NDArray[Any] = spec.zeros()
        """Fill this, then `send` it."""
        self._backend = backend

    def send(self) -> None:
        """Copy the host's values to where the graph reads them."""
        self._backend.write(self.array, self.host)

    def put(self, values: NDArray[Any] | float) -> None:
        """Copy values of the input's shape, or one number for all, and send them.

        Raises:
            InputError: another shape; nothing is written.
        """
        if isinstance(values, np.ndarray) and values.shape != self.host.shape:
            self.spec.validate(values.astype(self.host.dtype))
        if isinstance(values, np.ndarray) and values.dtype == self.host.dtype:
            self._backend.write(self.array, values)  # images are large: copied once
            return
        np.copyto(self.host, values, casting="unsafe")
        self.send()
