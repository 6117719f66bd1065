"""One dataset holds recordings of one kind; the first that is of another is named."""

from typing import Any

import pytest
from tests.fakes.recordings import header
from tests.fakes.step_recordings import recording_of

from memorywam_runtime.errors import InputError
from memorywam_runtime.recordings.lerobot_features import check_alike, features_of, has_verdicts


def test_what_may_differ():
    other: dict[str, Any] = {"robot": "sim:other", "instruction": "x", "seed": 1, "max_steps": 3}
    check_alike([recording_of([]), recording_of([], **other, cameras=("wrist", "head"))])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"control_hz": 20.0}, r"found steps a second: 20.0; expected 10.0, as in one.mcap"),
        ({"cameras": ("head",)}, r"found cameras: \['head'\]; expected \['head', 'wrist'\]"),
        ({"state_dim": 4}, "found numbers in a state: 4; expected 3"),
        ({"action_dim": 2}, "found numbers in an action: 2; expected 3"),
        ({"action_names": ("c", "b", "a")}, r"found names of actions: \['c', 'b', 'a'\]; expected"),
    ],
)
def test_what_may_not(changes, complaint):
    with pytest.raises(InputError, match=rf"^two.mcap: {complaint}.*make one of each$"):
        check_alike([recording_of([]), recording_of([], "two.mcap", **changes)])


@pytest.mark.parametrize(
    "changes",
    [
        {"cameras": ()}, {"cameras": ("a/b",)}, {"cameras": ("",)}, {"state_dim": 0},
        {"action_dim": 0, "action_names": ()},
    ],
)  # fmt: skip
def test_what_lerobot_has_no_place_for(changes):
    with pytest.raises(InputError, match="LeRobot has no place for others"):
        check_alike([recording_of([], **changes)])


@pytest.mark.parametrize(
    ("verdicts", "known"),
    [(["yes", "no"], True), (["yes", "unknown"], False), (["yes", None], False)],
)
def test_verdicts(verdicts, known):
    assert has_verdicts([recording_of([], ended=one) for one in verdicts]) is known


def test_features():
    found = features_of(header(), {"head": (6, 8, 3)}, as_video=True, with_success=False)
    assert found["action"] == {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]}
    assert found["observation.state"] == {"dtype": "float32", "shape": [3], "names": None}
    assert found["observation.images.head"]["dtype"] == "video"
    assert found["observation.images.head"]["shape"] == [6, 8, 3]
    assert "next.success" not in found
    found = features_of(
        header(action_names=()), {"head": (6, 8, 3)}, as_video=False, with_success=True
    )
    assert found["action"]["names"] is None
    assert found["observation.images.head"]["dtype"] == "image"
    assert found["next.success"] == {"dtype": "bool", "shape": [1], "names": None}
