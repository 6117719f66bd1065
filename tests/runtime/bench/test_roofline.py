"""The roofline's arithmetic, on figures small enough to check by hand."""

import pytest

from memorywam_runtime.bench.roofline import Peaks, Work, bound_of, work_of
from memorywam_runtime.manifest import GraphCost, GraphEntry
from memorywam_runtime.tensors import TensorSpec

COST = GraphCost(weight_bytes=1000, flops=5000, flops_per_row=70, memory_bytes_per_row=30)


def spec(name, *shape):
    return TensorSpec(name=name, shape=shape, dtype="float32", meaning="")


ENTRY = GraphEntry(
    file="g.onnx",
    inputs=(spec("x", 2, 3), spec("key_bias", 1, "keys"), spec("memory.00.k", 1, "rows", 4)),
    outputs=(spec("x_next", 2, 3), spec("memory_out.00.k", 1, "rows", 4)),
    cost=COST,
)


def test_work_is_weights_rows_and_what_crosses_the_edge_but_not_memory_itself():
    work = work_of(ENTRY, rows=10, keys=12)
    assert work == Work(num_bytes=1000 + 10 * 30 + 4 * (6 + 12 + 6), flops=5000 + 10 * 70)


def test_a_manifest_without_costs_gives_no_work():
    entry = GraphEntry(file="g.onnx", inputs=(), outputs=())
    assert work_of(entry, rows=1, keys=1) is None


def test_work_adds_up():
    one = Work(num_bytes=3, flops=5)
    assert one + one.times(9) == Work(num_bytes=30, flops=50)


@pytest.mark.parametrize(
    ("work", "ms", "limit"),
    [
        (Work(num_bytes=2000, flops=10), 2.0, "bandwidth"),
        (Work(num_bytes=1000, flops=9_000_000), 3.0, "rate"),
    ],
)
def test_the_bound_is_the_slower_of_moving_and_computing(work, ms, limit):
    bound = bound_of(work, Peaks(bytes_per_s=1e6, flops_per_s=3e9))
    assert bound.ms == pytest.approx(ms)
    assert bound.limit == limit
    assert bound.share(4 * ms) == pytest.approx(0.25)


@pytest.mark.parametrize("peaks", [(0, 1), (1, 0), (1, float("inf")), (float("nan"), 1)])
def test_peaks_that_nobody_measured_are_refused(peaks):
    with pytest.raises(ValueError, match="rates above 0"):
        bound_of(Work(num_bytes=1, flops=1), Peaks(bytes_per_s=peaks[0], flops_per_s=peaks[1]))
