"""The compiled arm computes what the eager one does, whole, and says what it needs."""

import numpy as np
import pytest
from torch._dynamo import config

from memorywam_runtime.backends import backend_from_name
from memorywam_runtime.bundle import read_manifest
from memorywam_runtime.errors import MissingPartError

# Torch's compiler loads parts of torch that torch itself deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning")


@pytest.fixture(autouse=True)
def settings_restored():
    """The backend sets torch's compiler up for the whole process: not for other tests."""
    names = ("capture_scalar_outputs", "recompile_limit", "fail_on_recompile_limit_hit")
    before = {name: getattr(config, name) for name in names}
    yield
    for name, value in before.items():
        setattr(config, name, value)


def called(backend, root, graph, rows):
    """Return every output of a graph on inputs that are the same for every backend."""
    entry = read_manifest(root).graphs[graph]
    engine = backend.load(root / entry.file, entry)
    inputs = {}
    for seed, spec in enumerate(s.bound(rows=rows, keys=rows) for s in entry.inputs):
        values = spec.example(seed)
        if spec.dtype == "int64":
            values[:] = 3
        inputs[spec.name] = backend.view(backend.flat(values.size, spec), spec)
        backend.write(inputs[spec.name], values)
    outputs = {}
    for spec in (s.bound(rows=rows, keys=rows) for s in entry.outputs):
        held = spec.name.replace("memory_out.", "memory.", 1)
        outputs[spec.name] = inputs.get(held)
        if held not in inputs:
            size = int(np.prod(spec.fixed_shape))
            outputs[spec.name] = backend.view(backend.flat(size, spec), spec)
    engine.bind(inputs, outputs)()
    return {name: backend.read(array) for name, array in outputs.items()}


@pytest.mark.parametrize("rows", [40, 72])
def test_a_compiled_graph_writes_memory_as_the_eager_one_does(tiny_bundle_in_place, rows):
    found = called(backend_from_name("compile"), tiny_bundle_in_place, "action_step", rows)
    expected = called(backend_from_name("eager"), tiny_bundle_in_place, "action_step", rows)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=2e-5, err_msg=name)


def test_it_is_told_that_there_is_no_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingPartError, match=r"no C\+\+ compiler 'no-such-compiler'.*install"):
        backend_from_name("compile")
