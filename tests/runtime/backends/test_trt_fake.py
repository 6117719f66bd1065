"""The fake TensorRT against the real package: every name that it has, and their arguments."""

import inspect
import re

import pytest
from tests.fakes import tensorrt as fake
from tests.fakes.tensorrt import real

CLASSES = ("Runtime", "ICudaEngine", "IExecutionContext", "IRuntimeConfig", "IRuntimeCache")
OURS = {"IExecutionContext": {"addresses", "scratch", "num_enqueued", "refuses"}}


def members(name):
    return {key: value for key, value in vars(getattr(fake, name)).items() if key[0] != "_"}


def real_arguments(method):
    """Return the names of the arguments of every overload, read from the docstring."""
    text = method.__doc__ or ""
    return [
        re.findall(r"(?:^|, )(\w+): ", line)[1:]
        for line in re.findall(rf"{method.__name__}\((self: .*)\) -> ", text)
    ]


@pytest.mark.parametrize("name", CLASSES)
def test_every_member_is_real_and_takes_the_same_arguments(name):
    cls = getattr(real, name)
    assert members(name)
    for key, value in members(name).items():
        found = getattr(cls, key)
        if isinstance(value, property):
            assert not callable(found), key
            continue
        ours = list(inspect.signature(value).parameters)[1:]
        theirs = real_arguments(found)
        assert any(len(ours) == len(other) for other in theirs), (key, ours, theirs)


def test_settings_are_real():
    config = fake.IRuntimeConfig(fake.FakeTensorRt(None))  # type: ignore[arg-type]
    for name in ("cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"):
        assert hasattr(config, name)
        assert not callable(getattr(real.IRuntimeConfig, name))


def test_the_package_has_what_the_fake_has():
    library = fake.FakeTensorRt(None)  # type: ignore[arg-type]
    mine = {"cuda", "plans", "contexts", "deserialized_caches", "file_of"}
    for name in {key for key in dir(library) if key[0] != "_"} - mine:
        assert hasattr(real, name), name
    assert real.ExecutionContextAllocationStrategy.USER_MANAGED
    assert real.CudaGraphStrategy.DISABLED
    assert real.DynamicShapesKernelSpecializationStrategy.EAGER
