"""What `--view` and the view's rules take and refuse."""

import pytest

from memorywam_robot.viewer.view_options import ViewRules, view_from_argument
from memorywam_runtime.errors import InputError


@pytest.mark.parametrize(
    ("argument", "file", "port"),
    [
        ("foxglove", None, 8765),
        ("foxglove:{}/a.mcap", "a.mcap", 8765),
        ("foxglove:0", None, 0),
        ("foxglove:{}/a.mcap:9000", "a.mcap", 9000),
    ],
)
def test_arguments(tmp_path, argument, file, port):
    options = view_from_argument(argument.format(tmp_path))
    assert (options.file, options.port) == (file and tmp_path / file, port)


@pytest.mark.parametrize(
    "argument",
    ["rerun", "foxglove:", "foxglove:1:2", "foxglove:70000", "foxglove:{}/a.rrd",
     "foxglove:{}/no/a.mcap", "foxglove:{}/there.mcap", "foxglove:{}/a.mcap:1:2"],
)  # fmt: skip
def test_refused_arguments(tmp_path, argument):
    (tmp_path / "there.mcap").touch()
    with pytest.raises(InputError):
        view_from_argument(argument.format(tmp_path))


def test_rules_refuse_nonsense():
    with pytest.raises(InputError, match="image_hz is 0"):
        ViewRules(image_hz=0)
