"""Torch's own tensors behind the protocol: what runs on a GPU, here on the CPU."""

import numpy as np
import pytest
import torch
from tests.fakes.bundles import differences
from tests.fakes.driver import Driver

from memorywam_export.eager.eager_cuda import TorchBackend, eager_cuda
from memorywam_runtime.bundle import open_bundle, read_prompt
from memorywam_runtime.errors import MissingPartError


def driven(bundle, backend, **options):
    session = open_bundle(bundle, backend=backend, **options)
    text = read_prompt(bundle, session.manifest, "random")
    return session, Driver(session, text).frames(34)


def test_its_actions_and_its_memory_are_those_of_the_host_backend(a_rung):
    """Over 34 frames, which cross a gist bucket: bit for bit."""
    wanted = driven(a_rung.root, "eager")
    found = driven(a_rung.root, TorchBackend(device="cpu"))
    assert found[0].buffers.bucket == 1
    np.testing.assert_array_equal(found[1], wanted[1])
    assert differences(found[0].snapshot(), wanted[0].snapshot()) == []


def test_a_machine_without_a_gpu_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingPartError, match="sees no CUDA device; expected one"):
        eager_cuda()
