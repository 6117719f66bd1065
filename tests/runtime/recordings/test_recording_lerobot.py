"""A LeRobot dataset of version 3 is read episode by episode; what does not fit is named."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="needs the extra memorywam[lerobot]")
pytest.importorskip("av", reason="needs the extra memorywam[lerobot]")

import pyarrow as pa
import pyarrow.parquet as pq
from tests.fakes.recordings import CAMERAS, FPS, _flat, _values, write_lerobot

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.recording import Instructed, Observed, Sent, open_recording, open_recordings

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
VIDEO = "videos/observation.images.head/chunk-000/file-000.mp4"


@pytest.mark.parametrize("video", [True, False])
@pytest.mark.parametrize(
    ("episode", "length", "task"), [(0, 9, "pick it up"), (1, 7, "put it down")]
)
def test_all_of_it_comes_back(tmp_path, video, episode, length, task):
    root = write_lerobot(tmp_path / "set", video=video, named_tasks=video)
    recording = open_recording(root, episode=episode)
    assert recording.kind == "lerobot"
    assert recording.damage is None
    assert recording.header.instruction == task
    assert recording.header.control_hz == FPS
    assert recording.header.cameras == CAMERAS
    assert recording.header.action_names == ("m0", "m1", "m2")
    assert recording.header.max_steps == length
    assert recording.header.robot == "so100"
    events = list(recording.events())
    assert len(events) == recording.num_events == 2 * length
    for step, (seen, sent) in enumerate(zip(events[::2], events[1::2], strict=True)):
        assert isinstance(seen, Observed)
        assert isinstance(sent, Sent)
        assert (seen.observation.step, sent.step) == (step, step + 1)
        assert seen.captured_ns == pytest.approx(1e9 * step / FPS, abs=100)
        np.testing.assert_array_equal(seen.observation.state, _values(episode, step, 3))
        np.testing.assert_array_equal(sent.action, _values(10 + episode, step, 3))
        for number, camera in enumerate(CAMERAS):
            image = seen.observation.images[camera]
            expected = _flat(number, step, (32, 48))
            assert image.shape == (32, 48, 3)
            assert image.dtype == np.uint8
            # The codec may change a grey by a little; a step is 12 away from the next.
            assert np.abs(image.astype(int) - expected).max() <= (4 if video else 0)


def test_every_episode(tmp_path):
    found = open_recordings(write_lerobot(tmp_path / "set"))
    assert [one.header.max_steps for one in found] == [9, 7]


def test_every_episode_of_every_dataset_in_a_directory(tmp_path):
    for name in "ab":
        write_lerobot(tmp_path / "sets" / name)
    assert [one.header.max_steps for one in open_recordings(tmp_path / "sets")] == [9, 7, 9, 7]


def test_another_dataset_in_its_place_is_not_taken_for_it(tmp_path):
    recording = open_recording(write_lerobot(tmp_path / "set"))
    assert next(recording.events())
    (tmp_path / "set").rename(tmp_path / "old")
    write_lerobot(tmp_path / "set", lengths=(12, 7))
    with pytest.raises(InputError, match="is another dataset than it was when opened"):
        next(recording.events())


def test_a_task_that_changes_is_another_instruction(tmp_path):
    root = write_lerobot(tmp_path / "set")
    rewritten(DATA, replaced("task_index", lambda v: [1, 1, 0, 0, 0, 1, *v[6:]]))(root)
    recording = open_recording(root)
    assert recording.header.instruction == "put it down"
    events = list(recording.events())
    assert len(events) == recording.num_events == 2 * 9 + 3
    told = [(k, one) for k, one in enumerate(events) if isinstance(one, Instructed)]
    assert [(k, one.step, one.instruction) for k, one in told] == [
        (4, 2, "pick it up"), (11, 5, "put it down"), (14, 6, "pick it up"),
    ]  # fmt: skip
    assert all(one.keep_memory for _, one in told)
    assert told[0][1].received_ns == pytest.approx(2e9 / FPS, abs=100)
    with pytest.raises(InputError, match="has no task 9"):
        rewritten(DATA, replaced("task_index", lambda v: [0, 9, *v[2:]]))(root)
        open_recording(root)


def test_no_such_episode(tmp_path):
    root = write_lerobot(tmp_path / "set")
    with pytest.raises(InputError, match="has no episode 2; expected 0 to 1"):
        open_recording(root, episode=2)


def info(**changes):
    def change(root):
        path = root / "meta" / "info.json"
        found = json.loads(path.read_text()) | changes
        path.write_text(json.dumps(found))

    return change


def features(change):
    def edit(root):
        path = root / "meta" / "info.json"
        found = json.loads(path.read_text())
        change(found["features"])
        path.write_text(json.dumps(found))

    return edit


def rewritten(name, change):
    def edit(root):
        path = root / name
        pq.write_table(change(pq.read_table(path)), path)

    return edit


def replaced(column, values):
    def change(table):
        place = table.schema.get_field_index(column)
        return table.set_column(place, column, pa.array(values(table[column].to_pylist())))

    return change


def cut(name, size):
    def edit(root):
        path = root / name
        path.write_bytes(path.read_bytes()[:size])

    return edit


def gone(name):
    return lambda root: (root / name).unlink()


def renamed_camera(found):
    found["../../../secret"] = found.pop("observation.images.head")


def two_cameras_of_a_name(found):
    found["observation.head"] = found["observation.images.head"]


def third(values):
    """The third number is another one."""
    return [*values[:2], values[2] + 5, *values[3:]]


def ragged(values):
    return [one[: 1 + number % 2] for number, one in enumerate(values)]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (info(codebase_version="v2.1"), "version v2.1; expected v3.x: convert it"),
        (info(fps=0), "found 0.0 frames a second"),
        (info(data_path="../{chunk_index}/{file_index}"), "expected the layout of version 3"),
        (info(data_path="{chunk_index.__class__}"), "expected the layout of version 3"),
        (info(features=5), "expected a LeRobot dataset of version 3"),
        (cut("meta/info.json", 40), "info.json: "),
        (features(lambda found: found.pop("action")), "has no feature 'action'"),
        (features(lambda found: found.pop("observation.state")), "no feature 'observation.state'"),
        (features(two_cameras_of_a_name), "each with a name of its own"),
        (features(renamed_camera), "no column"),
        (gone(EPISODES), "found no meta/episodes"),
        (cut(EPISODES, 300), "file-000.parquet cannot be read"),
        (rewritten(EPISODES, lambda t: t.drop_columns(["length"])), "has no column 'length'"),
        (
            rewritten(EPISODES, replaced("length", lambda v: [10, 7])),
            "episode 0 has 9 rows of data; expected 10",
        ),
        (
            rewritten(EPISODES, replaced("length", lambda v: [None, 7])),
            "found None as length; expected a number of at least 0",
        ),
        (
            rewritten(EPISODES, replaced("data/file_index", lambda v: [3, 3])),
            "has no data/chunk-000/file-003.parquet; the copy is incomplete",
        ),
        (gone(DATA), "has no data/chunk-000/file-000.parquet"),
        (cut(DATA, 500), "file-000.parquet cannot be read"),
        (rewritten(DATA, lambda t: t.drop_columns(["action"])), "has no column 'action'"),
        (rewritten(DATA, replaced("frame_index", third)), "has frame_index 7 in its row 2"),
        (
            rewritten(DATA, replaced("action", ragged)),
            "column 'action' is not of vectors",
        ),
        (rewritten(DATA, replaced("task_index", lambda v: [9] * len(v))), "has no task 9"),
        (gone("meta/tasks.parquet"), "has no meta/tasks.parquet"),
        (gone(VIDEO), "has no videos/observation.images.head/chunk-000/file-000.mp4"),
        (cut(VIDEO, 900), "file-000.mp4 cannot be read"),
        (
            rewritten(
                EPISODES,
                replaced("videos/observation.images.head/from_timestamp", lambda v: [1.2, 0.9]),
            ),
            "has no frame for step 4 of episode 0; expected 9 from 1.2 s",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, damage, expected):
    root = write_lerobot(tmp_path / "set")
    damage(root)
    with pytest.raises(InputError, match=expected):
        list(open_recording(root).events())


def test_a_camera_may_not_lead_out(tmp_path):
    root = write_lerobot(tmp_path / "set")
    key = "videos/../../../secret"
    old = "videos/observation.images.head"
    features(renamed_camera)(root)
    table = pq.read_table(root / EPISODES)
    pq.write_table(
        table.rename_columns([name.replace(old, key) for name in table.column_names]),
        root / EPISODES,
    )
    with pytest.raises(InputError, match="leads out of the dataset; refused"):
        open_recording(root)


def test_an_embedded_image_that_is_none(tmp_path):
    root = write_lerobot(tmp_path / "set", video=False)
    empty = [{"bytes": None, "path": "x.png"}] * 16
    rewritten(DATA, replaced("observation.images.head", lambda _: empty))(root)
    with pytest.raises(InputError, match=r"'observation.images.head' at step 0 holds no image"):
        list(open_recording(root).events())


@pytest.mark.parametrize("package", ["av", "pyarrow"])
def test_without_the_packages_the_extra_is_named(monkeypatch, package):
    import importlib
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(
        sys.modules, "memorywam_runtime.recordings.recording_lerobot", raising=False
    )
    with pytest.raises(MissingPartError, match=r"pip install 'memorywam\[lerobot\]'"):
        importlib.import_module("memorywam_runtime.recordings.recording_lerobot")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot")
    return [write_lerobot(folder / "videos"), write_lerobot(folder / "images", video=False)]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_makes_it_fail(datasets, data):
    """Its formats have no checksums: what cannot be read is said, the rest is read."""
    root = data.draw(st.sampled_from(datasets))
    file = data.draw(st.sampled_from(sorted(one for one in root.rglob("*.*") if one.is_file())))
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(bytes(damaged) if data.draw(st.booleans()) else whole[:place])
    try:
        with contextlib.suppress(InputError):
            recording = open_recording(root)
            assert len(list(recording.events())) == recording.num_events
    finally:
        file.write_bytes(whole)
