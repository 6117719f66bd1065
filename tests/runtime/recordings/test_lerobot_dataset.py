"""What is written is read back, every bit of it: states, actions, images, tasks, times."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra memorywam[lerobot]")
pytest.importorskip("av", reason="needs the extra memorywam[lerobot]")

import pyarrow.parquet as pq
from tests.fakes.recordings import CAMERAS, state_at
from tests.fakes.step_recordings import action_of, another, episode, recording_of, saw, sent

from memorywam_runtime.errors import InputError
from memorywam_runtime.recording import Event, Instructed, Observed, Sent, open_recordings
from memorywam_runtime.recordings import lerobot_files
from memorywam_runtime.recordings.lerobot_dataset import write_dataset
from memorywam_runtime.recordings.lerobot_rows import EpisodeRows

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
ONE_JOINT: dict[str, Any] = {"state_dim": 1, "action_dim": 1, "action_names": ("a",)}
FORMS = pytest.mark.parametrize("as_video", [False, True])


def info_of(root):
    return json.loads((root / "meta/info.json").read_text())


def stats_of(root):
    return json.loads((root / "meta/stats.json").read_text())


def column(root, name):
    return pq.read_table(root / DATA)[name].to_pylist()


def check_equal(root, recordings):
    """Our own reader gives what the rows are."""
    found = open_recordings(root)
    assert len(found) == len(recordings)
    for one, recording in zip(found, recordings, strict=True):
        rows = list(EpisodeRows(recording))
        events = list(one.events())
        changes = [one for one in events if isinstance(one, Instructed)]
        assert [(one.step, one.instruction, one.keep_memory) for one in changes] == [
            (k, row.task, True) for k, row in enumerate(rows) if k and row.task != rows[k - 1].task
        ]
        assert len(events) == one.num_events == 2 * len(rows) + len(changes)
        events = [one for one in events if not isinstance(one, Instructed)]
        assert one.header.instruction == rows[0].task
        assert set(one.header.cameras) == set(recording.header.cameras)
        assert one.header.control_hz == recording.header.control_hz
        assert one.header.action_names == recording.header.action_names
        for number, row in enumerate(rows):
            seen, done = events[2 * number : 2 * number + 2]
            assert isinstance(seen, Observed)
            assert isinstance(done, Sent)
            assert seen.observation.state.astype(np.float32).tobytes() == row.state.tobytes()
            assert done.action.astype(np.float32).tobytes() == row.action.tobytes()
            for name, image in row.sight.images.items():
                np.testing.assert_array_equal(seen.observation.images[name], image)
            assert seen.captured_ns == pytest.approx(1e9 * number / one.header.control_hz, rel=1e-6)


@FORMS
def test_all_of_it_comes_back(tmp_path, as_video):
    recordings = [
        recording_of(episode(9, 4, measured=(1, 3, 4, 8))),
        recording_of(episode(1), "two.mcap", instruction="put it down"),
        recording_of(episode(5, 1), "three.mcap", cameras=("wrist", "head")),
    ]
    told: list[int] = []
    out = tmp_path / "set"
    written = write_dataset(recordings, out, as_video=as_video, told=told.append)
    check_equal(out, recordings)
    found = [(one.num_rows, one.num_observed, one.num_measured) for one in written]
    assert found == [(9, 3, 6), (1, 1, 1), (5, 5, 5)]
    assert told == list(range(1, sum(one.num_events for one in recordings) + 1))
    assert (out / "videos").exists() == as_video


@FORMS
def test_files_and_groups_may_be_small(tmp_path, as_video, monkeypatch):
    for name, value in (("DATA_MB", 0), ("VIDEO_MB", 0), ("_BATCH_ROWS", 3)):
        monkeypatch.setattr(lerobot_files, name, value)
    recordings = [recording_of(episode(length, 2), f"{length}.mcap") for length in (7, 3, 4)]
    write_dataset(recordings, tmp_path / "set", as_video=as_video)
    check_equal(tmp_path / "set", recordings)
    assert len(list((tmp_path / "set").glob("data/*/*.parquet"))) == 3


@FORMS
def test_a_rate_that_is_no_whole_number_and_single_joints(tmp_path, as_video):
    events = [
        replace(one, action=one.action[:1])
        if isinstance(one, Sent)
        else replace(one, observation=replace(one.observation, state=one.observation.state[:1]))
        for one in episode(5, 2)
        if isinstance(one, Sent | Observed)
    ]
    recordings = [recording_of(events, control_hz=1000 / 60, **ONE_JOINT)]
    write_dataset(recordings, tmp_path / "set", as_video=as_video)
    check_equal(tmp_path / "set", recordings)
    assert info_of(tmp_path / "set")["fps"] == 1000 / 60


def test_every_column(tmp_path):
    recordings = [
        recording_of(episode(3, 2)),
        recording_of([*episode(5, 4)[1:], saw(6)], "two.mcap", ended="no"),
    ]
    written = write_dataset(recordings, tmp_path / "set")
    root = tmp_path / "set"
    assert column(root, "frame_index") == [0, 1, 2, 0]
    assert column(root, "episode_index") == [0, 0, 0, 1]
    assert column(root, "index") == [0, 1, 2, 3]
    assert column(root, "observed_step") == [0, 0, 2, 0]
    assert column(root, "next.done") == [False, False, True, True]
    assert column(root, "next.success") == [False, False, True, False]
    np.testing.assert_array_equal(column(root, "timestamp"), np.array([0, 0.1, 0.2, 0], np.float32))
    np.testing.assert_allclose(column(root, "captured_s"), [0, 0, 0.2, 0], atol=1e-12)
    np.testing.assert_allclose(column(root, "sent_s")[:3], [0.09999999, 0.19999999, 0.29999999])
    assert (written[1].num_unseen, written[1].num_unused) == (4, 1)
    np.testing.assert_array_equal(column(root, "action")[3], action_of(5).astype(np.float32))
    np.testing.assert_array_equal(
        column(root, "observation.state")[3], state_at(4).astype(np.float32)
    )


def test_another_task_in_the_middle_of_an_episode(tmp_path):
    events = episode(6, 2)
    events.insert(4, another(3, "stop « 😀 »\n\u202e\x00", keep_memory=True))
    recordings = [recording_of(events), recording_of(episode(2), "two.mcap", instruction="")]
    write_dataset(recordings, tmp_path / "set")
    assert column(tmp_path / "set", "task_index") == [0, 0, 0, 1, 1, 1, 2, 2]
    tasks = pq.read_table(tmp_path / "set/meta/tasks.parquet").to_pydict()
    assert tasks["task"] == ["press « the » button", "stop « 😀 »\n\u202e\x00", ""]
    assert info_of(tmp_path / "set")["total_tasks"] == 3
    entries = pq.read_table(tmp_path / "set" / EPISODES)
    assert entries["tasks"].to_pylist() == [tasks["task"][:2], [""]]
    check_equal(tmp_path / "set", recordings)


@FORMS
def test_what_it_says_about_itself(tmp_path, as_video):
    recordings = [recording_of(episode(3)), recording_of(episode(2), "two.mcap", robot="other")]
    root = tmp_path / "set"
    write_dataset(recordings, root, as_video=as_video)
    info = info_of(root)
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0", "robot_type": None, "total_episodes": 2, "total_frames": 5,
        "total_tasks": 1, "chunks_size": 1000, "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200, "fps": 10, "splits": {"train": "0:2"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if as_video else None,
    }  # fmt: skip
    assert isinstance(info["fps"], int)
    entries = pq.read_table(root / EPISODES).to_pylist()
    stats = stats_of(root)
    assert set(stats) == set(features)
    for key in stats:
        assert stats[key]["count"] == [5]
        assert [entry[f"stats/{key}/count"] for entry in entries] == [[3], [2]]
    assert np.shape(stats["observation.images.head"]["q50"]) == (3, 1, 1)
    assert np.shape(stats["action"]["std"]) == (3,)
    assert stats["frame_index"]["max"] == [2.0]
    assert stats["next.done"]["mean"] == pytest.approx([2 / 5])
    assert [(one["dataset_from_index"], one["dataset_to_index"]) for one in entries] == [
        (0, 3), (3, 5),
    ]  # fmt: skip
    assert [entry["length"] for entry in entries] == [3, 2]


def test_the_robot_is_named_where_there_is_one(tmp_path):
    shadow = recording_of(episode(), "two.mcap", robot="shadow:sim:fake")
    write_dataset([recording_of(episode()), shadow], tmp_path / "set")
    assert info_of(tmp_path / "set")["robot_type"] == "sim:fake"


def test_the_cameras_may_have_another_clock_than_the_host(tmp_path):
    """As in simulated time: captures count from the first capture, sends from its arrival."""
    hour_ns = 3_600_000_000_000
    events: list[Event] = [
        saw(0, late=hour_ns - 7), replace(sent(1), received_ns=hour_ns + 20_000_000), saw(1),
        replace(sent(2), received_ns=hour_ns + 50_000_000),
    ]  # fmt: skip
    write_dataset([recording_of(events)], tmp_path / "set")
    np.testing.assert_allclose(column(tmp_path / "set", "captured_s"), [0, 0.1])
    np.testing.assert_allclose(column(tmp_path / "set", "sent_s"), [0.02, 0.05])


def test_statistics_of_images_count_every_row(tmp_path):
    write_dataset([recording_of(episode(5, 4))], tmp_path / "set")
    shown = [saw(step).observation.images["head"] for step in (0, 0, 0, 0, 4)]
    found = stats_of(tmp_path / "set")["observation.images.head"]
    np.testing.assert_allclose(
        np.ravel(found["mean"]), np.mean(shown, axis=(0, 1, 2)) / 255, rtol=1e-9
    )


def test_damage_and_no_verdict(tmp_path):
    """Up to the damage; nobody knows of such an episode that it was done, or went well."""
    recordings = [
        recording_of(episode(3), ended=None, damage="cut off"),
        recording_of([saw(0)], "empty.mcap"),
        recording_of(episode(2), "whole.mcap"),
    ]
    written = write_dataset(recordings, tmp_path / "set")
    assert column(tmp_path / "set", "next.done") == [False, False, False, False, True]
    assert "next.success" not in info_of(tmp_path / "set")["features"]
    assert "next.success" not in stats_of(tmp_path / "set")
    assert [one.num_rows for one in written] == [3, 0, 2]
    assert written[1].num_unused == 1
    check_equal(tmp_path / "set", [recordings[0], recordings[2]])


def test_damage_that_leaves_no_row_is_told(tmp_path):
    damaged = recording_of([], "cut.mcap", ended=None, damage="it was cut off")
    with pytest.raises(
        InputError, match=r"in any recording \(cut.mcap: it was cut off\); expected"
    ):
        write_dataset([damaged], tmp_path / "set")


def test_an_episode_that_is_cut_is_not_done(tmp_path):
    events: list[Event] = [saw(0), sent(1), *[saw(step) for step in range(1, 100)]]
    (written,) = write_dataset([recording_of(events)], tmp_path / "set")
    assert written.cut is not None
    assert column(tmp_path / "set", "next.done") == [False]


@FORMS
@pytest.mark.parametrize(
    ("events", "complaint"),
    [
        ([], "no action after an observation in any recording"),
        ([saw(0), sent(1), saw(1, shape=(6, 9)), sent(2)],
         r"found images .*'head': \[6, 9, 3\].* at step 1; expected .*\[6, 8, 3\]"),
        ([saw(0), sent(1), sent(3)], "the action of step 3 after that of 1"),
    ],
)  # fmt: skip
def test_nothing_is_left_of_what_is_refused(tmp_path, events, complaint, as_video):
    with pytest.raises(InputError, match=complaint):
        write_dataset([recording_of(events)], tmp_path / "set", as_video=as_video)
    assert list(tmp_path.iterdir()) == []


def test_recordings_of_another_kind_are_refused_before_anything_is_written(tmp_path):
    recordings = [recording_of(episode()), recording_of(episode(), "two.mcap", control_hz=5.0)]
    with pytest.raises(InputError, match=r"found steps a second: 5\.0; expected 10\.0"):
        write_dataset(recordings, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_another_dataset_takes_its_place(tmp_path):
    out = tmp_path / "set"
    write_dataset([recording_of(episode())], out)
    second = [recording_of(episode(2))]
    with pytest.raises(InputError, match="--overwrite"):
        write_dataset(second, out)
    write_dataset(second, out, as_video=True, overwrite=True)
    check_equal(out, second)


def test_both_forms_name_both_cameras(tmp_path):
    write_dataset([recording_of(episode())], tmp_path / "set", as_video=True)
    assert sorted(one.name for one in (tmp_path / "set/videos").iterdir()) == [
        f"observation.images.{name}" for name in CAMERAS
    ]
