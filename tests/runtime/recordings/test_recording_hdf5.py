"""HDF5 episodes of RoboTwin and RMBench: right colours, right steps, and nothing from elsewhere."""

import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image
from tests.fakes.hdf5 import write_hdf5

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.recording import Observed, Sent, open_recording, open_recordings

h5py = pytest.importorskip("h5py", reason="needs the extra memorywam[hdf5]")

NUM_STEPS = 5
CAMERAS = ("head_camera", "left_camera")
COLOURS = {"head_camera": (250, 10, 30), "left_camera": (20, 40, 240)}


def picture(camera: str, step: int) -> np.ndarray:
    """A plain colour, which JPEG keeps, and which shows an exchange of red and blue."""
    image = np.empty((16, 24, 3), np.uint8)
    image[:] = COLOURS[camera]
    image[..., 1] += 10 * step
    return image


def joints() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "left_arm": rng.standard_normal((NUM_STEPS, 6)),
        "left_gripper": rng.random(NUM_STEPS),
        "right_arm": rng.standard_normal((NUM_STEPS, 6)),
        "right_gripper": rng.random(NUM_STEPS),
    }


VECTOR = np.concatenate([rows.reshape(NUM_STEPS, -1) for rows in joints().values()], axis=1)


def written(root, name="episode0", **how):
    pictures = {camera: [picture(camera, step) for step in range(NUM_STEPS)] for camera in CAMERAS}
    return write_hdf5(root / "data" / f"{name}.hdf5", pictures, joints(), **how)


@pytest.fixture
def episode(tmp_path):
    return written(tmp_path)


def observations(recording):
    return [one.observation for one in recording.events() if isinstance(one, Observed)]


@pytest.mark.parametrize("is_newer", [False, True], ids=["RoboTwin", "RMBench"])
def test_an_episode_is_read(is_newer, tmp_path):
    recording = open_recording(written(tmp_path, is_newer=is_newer), control_hz=10.0)
    header, count = recording.header, NUM_STEPS - is_newer
    assert recording.kind == "hdf5"
    assert header.instruction == "press the button"
    assert header.cameras == CAMERAS
    assert (header.state_dim, header.action_dim) == (14, 14)
    assert header.action_names[5:8] == ("left_arm_5", "left_gripper", "right_arm_0")
    assert header.control_hz == (15.0 if is_newer else 10.0), "a file that says its rate is right"
    assert header.max_steps == NUM_STEPS - 1
    events = list(recording.events())
    assert len(events) == recording.num_events
    seen = [one.observation for one in events if isinstance(one, Observed)]
    sent = [one for one in events if isinstance(one, Sent)]
    assert [one.step for one in seen] == list(range(count))
    assert [one.step for one in sent] == list(range(1, NUM_STEPS))
    np.testing.assert_allclose([one.state for one in seen], VECTOR[:count], rtol=1e-6)
    np.testing.assert_allclose([one.action for one in sent], VECTOR[1:], rtol=1e-6)
    kinds = [type(one) for one in events[:3]]
    assert kinds == [Observed, Sent, Observed]


@pytest.mark.parametrize("is_newer", [False, True], ids=["RoboTwin", "RMBench"])
def test_red_is_red(is_newer, tmp_path):
    for seen in observations(open_recording(written(tmp_path, is_newer=is_newer))):
        for camera, image in seen.images.items():
            assert image.flags.c_contiguous
            off = image.astype(int) - picture(camera, seen.step)
            assert np.abs(off).max() <= 6, "JPEG's rounding, and no exchange of colours"


def test_the_file_itself_has_red_and_blue_exchanged(episode):
    with h5py.File(episode) as file:
        content = file["observation/head_camera/rgb"][0]
    found = np.asarray(Image.open(io.BytesIO(content))).astype(int)
    assert np.abs(found - picture("head_camera", 0)[..., ::-1]).max() <= 6


def test_without_a_rate_it_is_that_of_the_data_sets(episode):
    assert open_recording(episode).header.control_hz == pytest.approx(250 / 15)


def test_without_wordings_there_is_no_instruction(tmp_path):
    assert open_recording(written(tmp_path, seen=None)).header.instruction == ""
    assert open_recording(written(tmp_path / "b", seen=())).header.instruction == "do it"
    assert open_recording(written(tmp_path / "c", seen=(), is_newer=True)).header.instruction == ""


@pytest.mark.parametrize("above", [False, True])
def test_a_data_set_is_all_its_episodes(above, tmp_path):
    for number in range(3):
        written(tmp_path, f"episode{number}", seen=(f"task {number}",))
    found = open_recordings(tmp_path if above else tmp_path / "data", control_hz=12.0)
    assert [one.header.instruction for one in found] == ["task 0", "task 1", "task 2"]
    assert all(one.header.control_hz == 12.0 for one in found)


def test_a_file_is_known_by_its_content(episode):
    other = episode.with_suffix(".bin")
    episode.rename(other)
    assert open_recording(other).kind == "hdf5"


def replace(place, value, **how):
    def edit(path):
        with h5py.File(path, "r+") as file:
            if place in file:
                del file[place]
            if value is not None:
                file.create_dataset(place, data=value, **how)

    return edit


def link(place, target):
    def edit(path):
        with h5py.File(path, "r+") as file:
            file.move(place, "moved")
            file[place] = target

    return edit


def external_data(path):
    raw = path.with_suffix(".raw")
    raw.write_bytes(np.zeros((NUM_STEPS, 14)).tobytes())
    with h5py.File(path, "r+") as file:
        del file["joint_action/vector"]
        file.create_dataset(
            "joint_action/vector",
            (NUM_STEPS, 14),
            "f8",
            external=[(str(raw), 0, raw.stat().st_size)],
        )


def virtual_data(path):
    layout = h5py.VirtualLayout((NUM_STEPS, 14), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (NUM_STEPS, 14))
    with h5py.File(path, "r+") as file:
        del file["joint_action/vector"]
        file.create_virtual_dataset("joint_action/vector", layout)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:900])


def other_joints(path):
    with h5py.File(path, "r+") as file:
        file["joint_action/vector"][:, 0] += 1


RGB = "observation/head_camera/rgb"
JOINTS = "joint_action/vector"


def huge(place, shape, dtype, chunks=None):
    def edit(path):
        with h5py.File(path, "r+") as file:
            del file[place]
            file.create_dataset(place, shape, dtype, chunks=chunks)

    return edit


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (cut_off, "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (replace("joint_action", None), "has no joint_action/vector; expected an episode"),
        (replace("observation", None), "has no observation; expected an episode"),
        (replace("observation", np.zeros(3)), "found an array at observation"),
        (replace("observation/head_camera", None), None),
        (replace(RGB, np.zeros((NUM_STEPS, 16, 24, 3), np.uint8)), f"found uint8 at {RGB}"),
        (replace(RGB, np.array([b"x"] * 4)), r"found \[4\] images .* expected \[5\]"),
        (replace(RGB, np.array([[b"x"]] * 5)), r"found \[5, 1\] images"),
        (
            replace(RGB, np.array([b"no jpeg"] * 5)),
            "step 0: found 7 bytes that begin with 6e6f206a",
        ),
        (replace(RGB, np.array([b""] * 5)), "found 0 bytes that begin with nothing"),
        (replace(RGB, np.array([b"\xff\xd8\xff\xe0"] * 5)), "are no PNG or JPEG image"),
        (replace(JOINTS, np.zeros(5)), "is not left_arm, left_gripper"),
        (replace(JOINTS, np.zeros((5, 2, 7))), r"found the shape \[5, 2, 7\]"),
        (replace(JOINTS, np.full((5, 14), np.nan)), "found NaN or infinity"),
        (replace(JOINTS, np.zeros((5, 14), int)), "found int64 at joint_action/vector"),
        (replace(JOINTS, np.zeros((0, 14))), r"found the shape \[0, 14\]"),
        (replace(JOINTS, VECTOR, compression="lzf"), r"needs the HDF5 filters \[32000\]"),
        (huge(JOINTS, (1 << 40, 14), "f8", (1, 14)), "found the shape"),
        (huge(JOINTS, (5, 1 << 30), "f8", (1, 1)), "found the shape"),
        (huge(JOINTS, (1 << 30, 14), "f8", (1 << 25, 14)), "is in pieces of"),
        (huge(RGB, (5,), "S200000000", (1,)), "images of up to 200,000,000 bytes"),
        (other_joints, "nobody could tell which joint is which"),
        (link(JOINTS, h5py.SoftLink("/moved")), "joint_action/vector is a link to elsewhere"),
        (link("observation", h5py.SoftLink("/moved")), "observation is a link to elsewhere"),
        (link(RGB, h5py.ExternalLink("other.h5", "/x")), f"{RGB} is a link to elsewhere"),
        (link("joint_action", h5py.ExternalLink("other.h5", "/")), "is a link to elsewhere"),
        (external_data, "is kept in other files; refused"),
        (virtual_data, "is kept in other files; refused"),
        (lambda path: wordings(path, "{"), "episode0.json: "),
        (lambda path: wordings(path, json.dumps({"seen": 5})), "as a list of texts under 'seen'"),
        (lambda path: wordings(path, " " * (1 << 21)), "expected at most 1,048,576 bytes"),
    ],
)
def test_what_does_not_fit_is_refused(damage, complaint, episode):
    damage(episode)
    if complaint is None:  # one camera is enough
        assert open_recording(episode).header.cameras == ("left_camera",)
        return
    with pytest.raises(InputError, match=complaint):
        list(open_recording(episode).events())


def wordings(path, text):
    (path.parent.parent / "instructions" / f"{path.stem}.json").write_text(text)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("place", [JOINTS, "joint_action", "observation", RGB])
@pytest.mark.parametrize("is_indirect", [False, True])
def test_no_other_file_is_opened(is_indirect, place, episode, tmp_path):
    """The other file is a pipe: whoever opened it would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    outside = h5py.ExternalLink(str(tmp_path / "pipe"), "/")
    with h5py.File(episode, "r+") as file:
        if place in file:
            file.move(place, "moved")
        if is_indirect:
            file["outside"] = outside
        file[place] = h5py.SoftLink("/outside/within") if is_indirect else outside
    with pytest.raises(InputError, match=f"{place}.* is a link to elsewhere"):
        open_recording(episode)


def test_a_file_that_has_changed_since_is_refused(episode):
    recording = open_recording(episode)
    replace(RGB, np.array([b"x"] * 3))(episode)
    with pytest.raises(InputError, match=r"found \[3\] images"):
        list(recording.events())


def test_a_compressed_file_is_read(episode):
    replace(JOINTS, VECTOR, compression="gzip", shuffle=True, fletcher32=True)(episode)
    assert open_recording(episode).header.state_dim == 14


def test_without_the_package_it_says_what_to_install(episode, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.delitem(sys.modules, "memorywam_runtime.recordings.recording_hdf5", raising=False)
    with pytest.raises(MissingPartError, match=r"pip install 'memorywam\[hdf5\]'"):
        open_recording(episode)
