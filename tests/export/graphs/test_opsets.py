"""The opset follows what the ONNX Runtime of a machine can run."""

import pytest

from memorywam_export.graphs.opsets import default_opset


@pytest.mark.parametrize(
    ("version", "opset"), [("1.31.1", 24), ("1.24.0", 24), ("1.23.2", 20), ("2.0", 24)]
)
def test_an_older_onnxruntime_gets_graphs_that_do_not_write_in_place(version, opset):
    assert default_opset(version) == opset


@pytest.mark.parametrize(("found", "opset"), [("1.23.2", 20), ("1.31.1", 24), (None, 24)])
def test_the_machines_own_onnxruntime_decides(monkeypatch, found, opset):
    monkeypatch.setattr("memorywam_export.graphs.opsets.version_of", lambda _: found)
    assert default_opset() == opset
