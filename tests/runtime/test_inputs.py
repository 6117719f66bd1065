"""What the host writes: shape and type are kept, a refusal writes nothing."""

import numpy as np
import pytest

from memorywam_runtime.backends.host import HostArrays
from memorywam_runtime.errors import InputError
from memorywam_runtime.inputs import HostInput
from memorywam_runtime.tensors import TensorSpec


class _Backend(HostArrays):
    name = "host"

    def load(self, path, entry):
        raise NotImplementedError


@pytest.fixture
def bias() -> HostInput:
    spec = TensorSpec(name="bias", shape=(1, 3), dtype="float32", meaning="added to scores")
    backend = _Backend()
    return HostInput(backend, spec, backend.view(backend.flat(3, spec), spec))


def test_values_are_cast_to_the_inputs_type(bias):
    bias.put(np.array([[1.0, 2.0, 3.0]]))
    assert bias.array.dtype == np.float32
    np.testing.assert_array_equal(bias.array, [[1, 2, 3]])


def test_one_number_fills_the_input(bias):
    bias.put(7)
    np.testing.assert_array_equal(bias.array, [[7, 7, 7]])


def test_what_is_filled_is_written_when_sent(bias):
    bias.host[0, 1] = 5
    assert not bias.array.any()
    bias.send()
    np.testing.assert_array_equal(bias.array, [[0, 5, 0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_another_shape_is_refused_and_nothing_is_written(bias, dtype):
    bias.put(1)
    with pytest.raises(
        InputError, match=r"tensor 'bias' .*found float32 \[1, 4\]; expected float32 \[1, 3\]"
    ):
        bias.put(np.zeros((1, 4), dtype))
    np.testing.assert_array_equal(bias.array, [[1, 1, 1]])
