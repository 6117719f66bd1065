"""Several calls as one CUDA graph: when it is captured, and what happens when it cannot be."""

import numpy as np
import pytest
from cuda.bindings import runtime as real  # pyright: ignore[reportAttributeAccessIssue]
from tests.fakes.cuda_driver import FakeCuda

from memorywam_runtime.errors import InputError
from memorywam_runtime.tensors import TensorSpec

ERRORS = real.cudaError_t


def made(arrays, *shape):
    spec = TensorSpec(name="t", shape=shape, dtype="float32", meaning="a test")
    return arrays.view(arrays.flat(int(np.prod(shape)), spec), spec)


def full(value, *shape):
    return np.full(shape, value, np.float32)


@pytest.fixture
def shift(arrays):
    """Rows of an array, and a sequence that moves the first to the second and on to the third."""
    one = made(arrays, 1, 1, 3, 2)
    runs = [lambda row=row: arrays.copy_rows(one, row + 1, one, row, 1) for row in (0, 1)]
    sequence = arrays.sequence(runs)

    def turn(value):
        arrays.write(one, np.array([[[[value] * 2, [0, 0], [0, 0]]]], np.float32))
        sequence()
        np.testing.assert_array_equal(arrays.read(one), full(value, 1, 1, 3, 2))

    return turn


def test_a_sequence_is_captured_at_its_second_turn(fake, arrays, shift):
    for value, wanted in enumerate([(0, 0, 2), (1, 1, 2), (0, 1, 0), (0, 1, 0)]):
        fake.calls.clear()
        shift(value)
        names = fake.names()
        counts = ("cudaStreamBeginCapture", "cudaGraphLaunch", "cudaMemcpy2DAsync")
        assert tuple(map(names.count, counts)) == wanted
    assert arrays.num_fallbacks == 0


@pytest.mark.parametrize(
    "function", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate"]
)
def test_a_sequence_that_cannot_be_captured_still_runs_and_is_counted(
    fake, arrays, shift, function
):
    shift(1)
    if function == "cudaStreamEndCapture":  # which ends the capture all the same
        fake.cudaStreamEndCapture = _refuses_what_it_ends(fake)
    else:
        fake.errors[function] = ERRORS.cudaErrorStreamCaptureUnsupported
    for value in range(2, 5):
        shift(value)
    assert arrays.num_fallbacks == 1
    assert "cudaErrorStreamCaptureUnsupported" in arrays.fallback_reason
    assert fake.num_launches == 0
    assert fake.graphs == {}


def _refuses_what_it_ends(fake):
    def end(stream):
        FakeCuda.cudaStreamEndCapture(fake, stream)
        fake.graphs.clear()
        return ERRORS.cudaErrorStreamCaptureUnsupported, None

    return end


def test_a_run_that_waits_while_it_is_captured_is_counted(fake, arrays):
    def waits():
        fake.cudaStreamSynchronize(arrays.device.handle)

    sequence = arrays.sequence([waits])
    for _ in range(3):
        sequence()
    assert arrays.num_fallbacks == 1
    assert "Invalidated" in arrays.fallback_reason


def test_an_error_of_ours_in_a_capture_leaves_the_stream_usable(fake, arrays, shift):
    turns = []

    def fails_at_its_second_turn():
        turns.append(1)
        if len(turns) == 2:
            raise KeyError("a bug")

    sequence = arrays.sequence([fails_at_its_second_turn])
    sequence()
    with pytest.raises(KeyError):
        sequence()
    assert not fake.is_capturing
    shift(1)
    shift(2)
    assert arrays.num_fallbacks == 0


@pytest.mark.parametrize("what", ["write", "read", "finish", "flat"])
def test_what_a_graph_would_not_do_again_is_refused_at_the_first_turn(arrays, what):
    one = made(arrays, 4)
    calls = {
        "write": lambda: arrays.write(one, full(1, 4)),
        "read": lambda: arrays.read(one),
        "finish": arrays.finish,
        "flat": lambda: made(arrays, 4),
    }
    with pytest.raises(InputError, match="inside a sequence; expected engine calls and copies"):
        arrays.sequence([calls[what]])()
    calls[what]()


def test_a_backend_without_graphs_counts_every_sequence(arrays, fake):
    arrays.why_no_graphs = "for a test"
    for _ in range(2):
        sequence = arrays.sequence([])
        for _ in range(3):
            sequence()
    assert (arrays.num_fallbacks, arrays.fallback_reason) == (2, "for a test")
    assert "cudaStreamBeginCapture" not in fake.names()
