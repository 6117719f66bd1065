"""TensorRT engines: what is bound, loaded and kept, and which files are refused."""

import gc
import logging
import subprocess
import sys
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.fakes.small_engine import ENTRY, INPUTS, OUTPUTS, PLAN, array, sides, spec
from tests.fakes.tensorrt import FakeTensorRt, Plan

from memorywam_runtime.backends import backend_from_name, trt_engine
from memorywam_runtime.backends.trt import TrtBackend
from memorywam_runtime.errors import BundleError, MissingPartError
from memorywam_runtime.manifest import GraphEntry

# Running.


def test_a_run_reads_and_writes_the_bound_arrays(backend, load):
    inputs, outputs = sides(backend)
    run = load().bind(inputs, outputs)
    backend.write(inputs["slot"], np.array([5]))
    for turn in range(1, 4):
        backend.write(inputs["x"], np.full((1, 4), 1, np.float32))
        run()
        np.testing.assert_array_equal(backend.read(outputs["total"]), np.full((1, 4), 6))
        np.testing.assert_array_equal(backend.read(inputs["memory"]), np.full((1, 2, 8, 4), turn))


def test_a_run_only_enqueues(fake, backend, load):
    run = load().bind(*sides(backend))
    backend.finish()
    fake.calls.clear()
    run()
    assert fake.calls == []
    assert fake.num_pending == 1


def test_two_runs_of_an_engine_keep_their_own_arrays(backend, load):
    """As the noisy actions do: each call reads what the other wrote."""
    doubles = GraphEntry(file="d.onnx", inputs=(spec("x", 4),), outputs=(spec("y", 4),))

    def double(arrays):
        np.multiply(arrays["x"], 2, out=arrays["y"])

    engine = load(Plan(inputs=doubles.inputs, outputs=doubles.outputs, compute=double), doubles)
    ping, pong = array(backend, spec("x", 4)), array(backend, spec("x", 4))
    there, back = engine.bind({"x": ping}, {"y": pong}), engine.bind({"x": pong}, {"y": ping})
    chunk = backend.sequence([there, back, there, back])
    for turn in range(4):
        backend.write(ping, np.full(4, 1 + turn, np.float32))
        chunk()
        np.testing.assert_array_equal(backend.read(ping), np.full(4, 16 * (1 + turn)))
    assert backend.num_fallbacks == 0


def test_memory_is_written_once_a_turn_whether_captured_or_not(fake, backend, load, library):
    inputs, outputs = sides(backend)
    update = backend.sequence([load().bind(inputs, outputs)])
    backend.write(inputs["x"], np.ones((1, 4), np.float32))
    for turn in range(1, 6):
        update()
        np.testing.assert_array_equal(backend.read(inputs["memory"]), np.full((1, 2, 8, 4), turn))
    assert fake.num_launches == 4
    assert library.contexts[0].num_enqueued == 2  # the warm-up and the capture


@pytest.mark.parametrize(
    ("rows", "profile"), [(1, 0), (8, 0), (20, 0), (24, 1), (64, 1), (65, 2), (99, 2)]
)
def test_the_profile_that_was_tuned_nearest(backend, load, library, rows, profile):
    run = load().bind(*sides(backend, rows))
    assert library.contexts[0].active_optimization_profile == profile
    run()
    backend.finish()


def test_the_scratch_memory_is_one_for_all_engines(backend, load, library):
    small, large = load(), load(replace(PLAN, scratch_bytes=50_000), name="large")
    for engine in (small, large, small):
        engine.bind(*sides(backend))
    assert len({context.scratch for context in library.contexts}) == 1
    assert library.contexts[0].scratch[1] == 50_000
    # A larger engine that comes later gets more; those before keep what their graphs hold.
    load(replace(PLAN, scratch_bytes=90_000), name="larger").bind(*sides(backend))
    assert library.contexts[3].scratch[1] == 90_000
    assert library.contexts[0].scratch[1] == 50_000


def test_an_engine_that_needs_no_scratch(backend, load):
    load(replace(PLAN, scratch_bytes=0)).bind(*sides(backend))()
    backend.finish()


def test_it_says_what_it_is(backend):
    assert (backend.name, backend.target) == ("tensorrt-rtx", "sm_89")
    assert backend.version == FakeTensorRt.__version__
    assert not backend.allow_unverified
    assert backend_from_name("tensorrt-rtx", allow_unverified=True).allow_unverified  # type: ignore[attr-defined]


def test_a_backend_and_its_engines_go_with_the_last_run(fake, load, backend, library):
    run = load().bind(*sides(backend))
    assert len(fake.memory) == 6  # three inputs, one output of its own, the head, the scratch
    run()
    backend.finish()
    library.contexts.clear()
    del run
    gc.collect()
    assert len(fake.memory) == 2


# Refusals of a file.


def test_a_file_that_is_no_engine(backend, tmp_path):
    path = tmp_path / "graph.engine"
    path.write_bytes(b"not an engine")
    message = r"tensorrt-rtx .* cannot load graph.engine on sm_89: the plan's magic tag does not"
    with pytest.raises(BundleError, match=message):
        backend.load(path, ENTRY)
    path.write_bytes(b"")
    with pytest.raises(BundleError, match=r"graph.engine cannot be read as an engine"):
        backend.load(path, ENTRY)
    with pytest.raises(BundleError, match="No such file"):
        backend.load(tmp_path / "none.engine", ENTRY)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"outputs": (*OUTPUTS, spec("more", 1))}, "more"),
        ({"outputs": OUTPUTS[:1]}, "memory_out"),
        ({"inputs": (spec("x", 1, 5), *INPUTS[1:])}, r"\(1, 5\)"),
        ({"inputs": (spec("x", 1, 4, dtype="float16"), *INPUTS[1:])}, "float16"),
        ({"inputs": (spec("x", 1, "rows"), *INPUTS[1:])}, r"\(1, -1\)"),
        ({"inputs": (*INPUTS, OUTPUTS[0]), "outputs": OUTPUTS[1:]}, "OUTPUT"),
        ({"location": "HOST"}, "HOST"),
    ],
)
def test_an_engine_of_another_graph(load, changed, part):
    with pytest.raises(BundleError, match=f"not those of the manifest; they differ in .*{part}"):
        load(replace(PLAN, **changed))


def test_an_entry_of_another_graph(load):
    entry = msgspec.structs.replace(ENTRY, inputs=INPUTS[:2])
    with pytest.raises(BundleError, match="slot"):
        load(entry=entry)


# The package itself.


def test_an_unknown_flavour(fake):
    with pytest.raises(MissingPartError, match="'lean'; expected one of tensorrt, tensorrt-rtx"):
        TrtBackend("lean")  # type: ignore[arg-type]


@pytest.mark.parametrize("flavour", ["tensorrt", "tensorrt-rtx"])
def test_a_flavour_that_is_not_installed(monkeypatch, fake, flavour):
    monkeypatch.setitem(sys.modules, flavour.replace("-", "_"), None)
    with pytest.raises(
        MissingPartError, match=f"backend '{flavour}' expects the package .*install"
    ):
        backend_from_name(flavour)


def test_messages_go_to_logging(backend, caplog, tmp_path):
    (tmp_path / "graph.engine").write_bytes(b"junk")
    with caplog.at_level(logging.DEBUG, "memorywam.tensorrt"), pytest.raises(BundleError):
        backend.load(tmp_path / "graph.engine", ENTRY)
    ((logger, level, text),) = caplog.record_tuples
    assert (logger, level) == ("memorywam.tensorrt", logging.ERROR)
    assert text == "the plan's magic tag does not match"


def test_the_real_package_refuses_junk_in_its_own_words(fake, caplog, tmp_path):
    """The real library on the fake device: our logger, our buffer and its runtime fit together."""
    backend = backend_from_name("tensorrt-rtx")
    (tmp_path / "graph.engine").write_bytes(b"junk" * 1000)
    with pytest.raises(BundleError, match=r"cannot load graph\.engine on sm_89: .*\S"):
        backend.load(tmp_path / "graph.engine", ENTRY)
    errors = [r.message for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors
    assert backend.last_error in errors  # type: ignore[attr-defined]


def test_loading_it_imports_neither_torch_nor_onnx():
    code = (
        "import sys, memorywam_runtime.backends.trt, memorywam_runtime.backends.ort_cuda;"
        "print(sorted({'torch', 'onnx', 'tensorrt_rtx', 'tensorrt'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


# The cache of compiled kernels.


def test_a_cache_beside_the_engine_is_used_and_never_needed(backend, load, library, tmp_path):
    engine = load()
    assert library.deserialized_caches == []
    assert backend.save_caches() == [tmp_path / "graph.engine.cache"]
    again = load()
    assert library.deserialized_caches == [b"kernels"]
    assert backend.save_caches() == []  # as it was
    (tmp_path / "graph.engine.cache").unlink()
    del engine, again
    assert backend.save_caches() == []


def test_a_cache_that_cannot_be_written_is_told(backend, load, caplog, monkeypatch, tmp_path):
    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(trt_engine, "atomic_write", refuse)
    engine = load()
    assert backend.save_caches() == []
    assert "compiled anew at every start" in caplog.text
    assert "graph.engine.cache" in caplog.text
    del engine


def test_a_cache_of_another_gpu_is_told_and_not_used(backend, load, caplog, tmp_path):
    (tmp_path / "graph.engine.cache").write_bytes(b"of another GPU")
    load().bind(*sides(backend))()
    backend.finish()
    assert "kernels are compiled anew" in caplog.text


def test_full_tensorrt_keeps_no_cache(monkeypatch, fake, tmp_path):
    library = FakeTensorRt(fake, is_rtx=False)
    monkeypatch.setitem(sys.modules, "tensorrt", library)
    backend: Any = backend_from_name("tensorrt")
    engine = backend.load(library.file_of(tmp_path / "graph.engine", PLAN), ENTRY)
    engine.bind(*sides(backend))()
    backend.finish()
    assert backend.save_caches() == []
