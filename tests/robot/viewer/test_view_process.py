"""Starting the viewer's process."""

import pytest
from tests.fakes.dead_process import DeadProcess

from memorywam_robot.viewer.view_events import Setup
from memorywam_robot.viewer.view_process import ViewProcess
from memorywam_runtime.errors import DeviceError


def test_a_viewer_that_is_gone_before_it_is_told_what_to_show(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", DeadProcess)
    setup = Setup(kind="foxglove", file=str(tmp_path / "view.mcap"), port=0)
    with pytest.raises(DeviceError, match="the viewer did not start within 20 s; run without"):
        ViewProcess(setup, ready_s=20)
