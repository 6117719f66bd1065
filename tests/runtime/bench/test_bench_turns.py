"""Arms take turns: each once a round, in random order, the first one twice; what dies is told."""

import os
import signal

import pytest

from memorywam_runtime.bench import bench, bench_peaks
from memorywam_runtime.bench.bench import FULL_HISTORY, bench_bundle
from memorywam_runtime.bench.bench_arm import ArmOptions
from memorywam_runtime.bench.bench_worker import RemoteArm
from memorywam_runtime.errors import CapacityError, InputError, MemorywamError, MissingPartError
from memorywam_runtime.opening import Opening


@pytest.fixture
def turns(monkeypatch):
    """What fake arms were asked, in order: (name, what, of what)."""
    log = []

    class Fake:
        def __init__(self, options):
            self.name = FULL_HISTORY if options.full_history else options.opening.backend
            self.threads = options.opening.num_threads

        def __enter__(self):
            return self

        def __exit__(self, *error):
            log.append((self.name, "end", None))

        def open(self):
            log.append((self.name, "open", self.threads))
            return {"start_s": 0.1, "open_s": 0.2, "first_ms": {}, "provider": None}

        def fill(self, frames):
            if self.name == FULL_HISTORY and frames > 20:
                raise InputError("no room")
            log.append((self.name, "fill", frames))
            keys = {"cache_update": 1, "action_step": 1}
            return {"rows": frames, "keys": keys, "memory_bytes": 1, "first_tick_ms": 1.0}

        def tick(self, *, discard=0):
            log.append((self.name, "tick", discard))
            slow = 2.0 if self.name == "eager" else 1.0
            return {"tick": [10 * slow], "engines": [9 * slow], "action_step": [slow, slow]}

    monkeypatch.setattr(bench, "RemoteArm", Fake)
    return log


def test_arms_take_turns_in_random_order(tiny_bundle, turns):

    def measure(seed=0):
        return bench_bundle(tiny_bundle, Opening(num_threads=1), frames=(10, 40), repeat=8,
                            against=("eager",), full_history=True, seed=seed)  # fmt: skip

    data = measure()
    first = list(turns)
    ticks = [name for name, what, _ in turns if what == "tick"]
    rounds = [ticks[i : i + 4] for i in range(0, 20, 4)]  # full history: five rounds at most
    assert all(sorted(names) == ["eager", FULL_HISTORY, "ort", "ort"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert {discard for _, what, discard in turns if what == "tick"} == {1}
    assert [what for _, what, _ in turns][-4:] == ["end"] * 4
    turns.clear()
    measure()
    assert turns == first
    turns.clear()
    measure(seed=1)
    assert turns != first
    assert list(data["arms"]) == ["ort", "eager", "ort again", FULL_HISTORY]


def test_what_the_turns_say(tiny_bundle, turns):
    data = bench_bundle(tiny_bundle, frames=(10, 40), repeat=3, against=("eager",),
                        full_history=True)  # fmt: skip
    ratios = {(one["arm"], one["frames"], one["stage"]): one for one in data["ratios"]}
    assert ratios["eager", 10, "tick"]["ratio"] == pytest.approx(2.0)
    assert ratios["ort again", 40, "tick"]["ratio"] == pytest.approx(1.0)
    assert [one["share"] for one in data["outside"]] == pytest.approx([0.1] * 7)
    left_out = data["arms"][FULL_HISTORY]["by_frames"][1]
    assert left_out["left_out"] == "no room"
    assert left_out["stages_ms"] == {}
    assert {one["arm"] for one in data["growth"]} == {"ort", "eager", "ort again"}
    threads = {threads for _, what, threads in turns if what == "open"}
    assert threads == {data["threads"]}
    assert data["threads"] >= 1  # equal, and known, though none was asked for


def test_an_arm_is_named_once(tiny_bundle):
    with pytest.raises(InputError, match="each backend once"):
        bench_bundle(tiny_bundle, against=("eager", "ort"))


def test_an_arm_in_another_process_answers_as_one_in_this(tiny_bundle):
    options = ArmOptions(root=str(tiny_bundle), opening=Opening(num_threads=1), num_steps=3)
    with RemoteArm(options) as arm:
        opened = arm.open()
        assert opened["start_s"] > 0
        assert opened["first_ms"]["chunk"] > 0
        assert arm.fill(10)["rows"] == 120
        spans = arm.tick(discard=1)
        assert len(spans["action_step"]) == 3
        with pytest.raises(MemorywamError, match="memory is full"):
            arm.fill(257)
        with pytest.raises(CapacityError):  # it is still there, and as full as it was
            arm.tick()


def test_what_another_process_refuses_is_refused_here(tiny_bundle):
    options = ArmOptions(root=str(tiny_bundle), opening=Opening(backend="other"))
    with RemoteArm(options) as arm, pytest.raises(MissingPartError, match="backend 'other'"):
        arm.open()


def test_a_process_that_dies_is_told_with_its_last_words(tiny_bundle):
    with RemoteArm(ArmOptions(root=str(tiny_bundle), opening=Opening(num_threads=1))) as arm:
        arm.open()
        os.kill(arm._process.pid, signal.SIGKILL)
        with pytest.raises(MemorywamError, match=r"'ort' ended with status -9 in 'fill'"):
            arm.fill(1)


def test_a_process_that_is_gone_before_it_is_asked_is_told_too(tiny_bundle):
    with RemoteArm(ArmOptions(root=str(tiny_bundle), opening=Opening(num_threads=1))) as arm:
        arm._process.kill()
        arm._process.wait()
        with pytest.raises(MemorywamError, match=r"'ort' ended with status -9 in 'start'"):
            arm.open()


def test_peaks_are_rates_of_what_was_done():
    peaks = bench_peaks.measure_peaks(2, read_bytes=1 << 20, side=64, repeat=2)
    assert peaks["threads"] == 2
    assert "1 MiB" in peaks["how"]
    assert all(peaks[key] > 1e6 for key in ("read_bytes_per_s", "copy_bytes_per_s", "flops_per_s"))


def test_the_best_of_two_measurements_counts():
    first = {"threads": 1, "read_bytes_per_s": 3.0, "copy_bytes_per_s": 1.0, "flops_per_s": 8.0}
    found = bench_peaks.best_of([first, first | {"read_bytes_per_s": 2.0, "flops_per_s": 9.0}])
    assert found == first | {"flops_per_s": 9.0}


def test_peaks_that_could_not_be_measured_are_not_made_up(monkeypatch):
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(MemorywamError, match="status 1"):
        bench_peaks.measured_peaks(1)
