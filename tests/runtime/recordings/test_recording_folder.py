"""A plain folder is an episode; what is missing or does not fit is named."""

import json

import numpy as np
import pytest
from tests.fakes.recordings import CAMERAS, image_at, state_at, write_folder

from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import Observed, Sent, open_recording, open_recordings


@pytest.mark.parametrize("csv", [False, True])
def test_all_of_it_comes_back(tmp_path, csv):
    recording = open_recording(write_folder(tmp_path / "one", csv=csv))
    assert recording.kind == "folder"
    assert recording.damage is None
    assert recording.provenance is None
    assert recording.header.instruction == "stack"
    assert recording.header.cameras == CAMERAS
    assert recording.header.action_names == ("a", "b", "c")
    assert recording.header.max_steps == 8
    events = list(recording.events())
    assert len(events) == recording.num_events == 8 + 3
    seen = [one.observation for one in events if isinstance(one, Observed)]
    assert [one.step for one in seen] == [0, 4, 8]
    for one in seen:
        np.testing.assert_array_equal(one.state, state_at(one.step))
        for camera in CAMERAS:
            np.testing.assert_array_equal(one.images[camera], image_at(camera, one.step))
    sent = [one for one in events if isinstance(one, Sent)]
    assert [one.step for one in sent] == list(range(1, 9))
    for action in sent:
        np.testing.assert_array_equal(action.action, state_at(99 + action.step))
    # An observation of a step comes after the action that made the step.
    assert [type(one) for one in events[:3]] == [Observed, Sent, Sent]
    assert isinstance(events[5], Observed)


def test_a_missing_image_ends_what_is_read(tmp_path):
    root = write_folder(tmp_path / "one")
    (root / "images" / "wrist" / "000004.png").unlink()
    recording = open_recording(root)
    assert "step 4 has no image of ['wrist']" in str(recording.damage)
    events = list(recording.events())
    assert len(events) == recording.num_events == 1 + 3
    assert isinstance(events[-1], Sent)


def test_a_missing_state_ends_what_is_read(tmp_path):
    root = write_folder(tmp_path / "one")
    np.save(root / "states.npy", np.zeros((6, 3)))
    np.save(root / "actions.npy", np.zeros((6, 3)))
    recording = open_recording(root)
    assert "step 8 has images and no state" in str(recording.damage)
    assert len(list(recording.events())) == recording.num_events == 2 + 6


def break_png(root):
    path = root / "images" / "head" / "000004.png"
    path.write_bytes(path.read_bytes()[:60])


def huge_npy(root):
    """A header that claims more than the file has, and more than any memory."""
    content = bytearray((root / "states.npy").read_bytes())
    shape = content.index(b"(9, 3)")
    content[shape : shape + 6] = b"(99,9)"
    (root / "states.npy").write_bytes(bytes(content))


def pickled_npy(root):
    np.save(root / "actions.npy", np.array([{"a": 1}], object), allow_pickle=True)


def link_out(root):
    (root / "images" / "head" / "000004.png").unlink()
    (root / "images" / "head" / "000004.png").symlink_to("/etc/hostname")


def two_of_a_step(root):
    folder = root / "images" / "head"
    (folder / "4.png").write_bytes((folder / "000004.png").read_bytes())


def rename_image(root):
    folder = root / "images" / "head"
    (folder / "000004.png").rename(folder / "later.png")


def edited(**changes):
    def edit(root):
        about = json.loads((root / "recording.json").read_text()) | changes
        (root / "recording.json").write_text(json.dumps(about))

    return edit


def ragged_csv(root):
    (root / "states.npy").unlink()
    (root / "states.csv").write_text("a,b\n1,2\n3\n")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda root: (root / "states.npy").unlink(), "neither of states.npy and states.csv"),
        (lambda root: (root / "states.csv").write_text("1"), "both of states.npy and states.csv"),
        (lambda root: (root / "recording.json").write_text("{"), "recording.json: "),
        (lambda root: np.save(root / "actions.npy", np.zeros((5, 3))), "9 states and 5 actions"),
        (lambda root: np.save(root / "actions.npy", np.zeros(8)), r"shape \[8\]; expected finite"),
        (lambda root: np.save(root / "actions.npy", np.full((8, 3), np.nan)), "NaN or infinity"),
        (huge_npy, "states.npy: not an array of numbers"),
        (pickled_npy, "actions.npy: not an array of numbers"),
        (
            lambda root: (root / "states.npy").write_bytes((root / "states.npy").read_bytes()[:60]),
            "states.npy: not an array of numbers",
        ),
        (ragged_csv, "states.csv: not an array of numbers"),
        (break_png, "000004.png: found 60 bytes that are no PNG"),
        (link_out, "leads out of the recording; refused"),
        (two_of_a_step, "found step 4 twice"),
        (rename_image, "expected a step's number as its name"),
        (edited(control_hz=0), "found control_hz 0"),
        (edited(instruction=5), "Expected `str`"),
        (edited(action_names=["a"]), "found 1 action_names for actions of 3 numbers"),
        (edited(fps=5), "unknown field `fps`"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, damage, expected):
    root = write_folder(tmp_path / "one")
    damage(root)
    with pytest.raises(InputError, match=expected):
        list(open_recording(root).events())


def test_no_images_at_all(tmp_path):
    root = write_folder(tmp_path / "one")
    (root / "images").rename(root / "pictures")
    with pytest.raises(InputError, match=r"found no images; expected images/CAMERA/STEP.png"):
        open_recording(root)


def test_every_recording_of_a_directory(tmp_path):
    for name in ("b", "a"):
        write_folder(tmp_path / "many" / name)
    (tmp_path / "many" / "notes.txt").write_text("no recording")
    found = open_recordings(tmp_path / "many")
    assert [one.path.name for one in found] == ["a", "b"]
    assert [one.path for one in open_recordings(tmp_path / "many" / "a")] == [found[0].path]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no recording in .*; expected files that end in .mcap"):
        open_recordings(tmp_path / "empty")
    with pytest.raises(InputError, match="found a directory with neither"):
        open_recording(tmp_path / "empty")
    with pytest.raises(InputError, match="found nothing"):
        open_recording(tmp_path / "nowhere")
