"""Tables and videos are written group by group, file by file, and give back every bit."""

import importlib
import sys

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra memorywam[lerobot]")
pytest.importorskip("av", reason="needs the extra memorywam[lerobot]")

import av
import pyarrow as pa
import pyarrow.parquet as pq

from memorywam_runtime.errors import MissingPartError
from memorywam_runtime.recordings import lerobot_files
from memorywam_runtime.recordings.lerobot_files import DataFiles, VideoFiles, write_tasks

FEATURES = {
    "state": {"dtype": "float32", "shape": [2]},
    "one": {"dtype": "float32", "shape": [1]},
    "number": {"dtype": "int64", "shape": [1]},
    "is_last": {"dtype": "bool", "shape": [1]},
    "look": {"dtype": "image", "shape": [6, 8, 3]},
    "film": {"dtype": "video", "shape": [6, 8, 3]},
}


def row(number, image=b"png"):
    return {
        "state": np.array([number, -number], np.float32), "one": np.array([number], np.float32)[0],
        "number": number, "is_last": False, "look": {"bytes": image, "path": None}, "other": 1,
    }  # fmt: skip


def test_tables_have_lerobots_types(tmp_path):
    files = DataFiles(tmp_path, FEATURES)
    files.add(row(1), 3, is_new=True)
    assert files.end_episode({"is_last": True}) == {"chunk_index": 0, "file_index": 0}
    files.close()
    files.close()
    table = pq.read_table(tmp_path / "data/chunk-000/file-000.parquet")
    assert table.schema.names == ["state", "one", "number", "is_last", "look"]
    assert table.schema.field("state").type == pa.list_(pa.float32(), 2)
    assert table.schema.field("one").type == pa.float32()
    assert table.to_pylist() == [
        {"state": [1.0, -1.0], "one": 1.0, "number": 1, "is_last": True,
         "look": {"bytes": b"png", "path": None}}
    ]  # fmt: skip


@pytest.mark.parametrize(("limit", "value"), [("_BATCH_ROWS", 4), ("_BATCH_BYTES", 40)])
def test_rows_wait_in_small_groups(tmp_path, monkeypatch, limit, value):
    monkeypatch.setattr(lerobot_files, limit, value)
    files = DataFiles(tmp_path, FEATURES)
    for number in range(10):
        files.add(row(number), 10, is_new=True)
        assert len(files._rows) <= 4
    files.end_episode({"is_last": True})
    files.close()
    found = pq.ParquetFile(tmp_path / "data/chunk-000/file-000.parquet")
    assert [found.metadata.row_group(k).num_rows for k in range(3)] == [4, 4, 2]
    assert found.read()["is_last"].to_pylist() == [False] * 9 + [True]


def test_an_image_that_rows_repeat_is_there_once(tmp_path):
    images = [np.random.default_rng(seed).bytes(600_000) for seed in range(4)]
    files = DataFiles(tmp_path, FEATURES)
    for number in range(20):
        files.add(row(number, images[number // 5]), 600_000, is_new=number % 5 == 0)
    files.end_episode({})
    files.close()
    file = tmp_path / "data/chunk-000/file-000.parquet"
    assert file.stat().st_size < 1.1 * 4 * 600_000
    found = [one["bytes"] for one in pq.read_table(file)["look"].to_pylist()]
    assert found == [images[number // 5] for number in range(20)]


def test_a_group_ends_where_the_image_does(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_files, "_BATCH_BYTES", 40)
    monkeypatch.setattr(lerobot_files, "_MOST_BYTES", 100)
    files = DataFiles(tmp_path, FEATURES)
    for number in range(24):
        files.add(row(number), 10, is_new=number in (0, 6, 8))
    files.end_episode({})
    files.close()
    found = pq.ParquetFile(tmp_path / "data/chunk-000/file-000.parquet").metadata
    groups = [found.row_group(k).num_rows for k in range(found.num_row_groups)]
    assert groups == [6, 10, 8]


def test_a_large_file_is_followed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_files, "DATA_MB", 0)
    monkeypatch.setattr(lerobot_files, "FILES_A_CHUNK", 2)
    files = DataFiles(tmp_path, FEATURES)
    places = []
    for number in range(3):
        files.add(row(number), 3, is_new=True)
        places.append(files.end_episode({}))
    files.close()
    assert [tuple(one.values()) for one in places] == [(0, 0), (0, 1), (1, 0)]
    for number, name in enumerate(("000/file-000", "000/file-001", "001/file-000")):
        table = pq.read_table(tmp_path / f"data/chunk-{name}.parquet")
        assert table["number"].to_pylist() == [number]


def frames(count, shape, seed=1):
    return list(np.random.default_rng(seed).integers(0, 256, (count, *shape, 3), np.uint8))


def decoded(file):
    with av.open(str(file)) as container:
        return [
            (frame.time, frame.key_frame, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


@pytest.mark.parametrize("shape", [(6, 8), (33, 17), (2, 2)])
@pytest.mark.parametrize("rate_hz", [10.0, 1000 / 60, 0.5])
def test_videos_give_back_every_bit(tmp_path, shape, rate_hz):
    images = frames(5, shape)
    video = VideoFiles(tmp_path, "look", rate_hz)
    for image in images:
        for repeat in range(3):
            video.add(image, is_new=repeat == 0)
    place = video.end_episode()
    video.close()
    video.close()
    assert place == {
        "chunk_index": 0, "file_index": 0, "from_timestamp": 0.0, "to_timestamp": 15 / rate_hz,
    }  # fmt: skip
    found = decoded(tmp_path / "videos/look/chunk-000/file-000.mp4")
    assert len(found) == 15
    for number, (time_s, is_key, image) in enumerate(found):
        assert time_s == pytest.approx(number / rate_hz, abs=1e-4)  # LeRobot's tolerance
        assert is_key == (number % 3 == 0)
        np.testing.assert_array_equal(image, images[number // 3])


def test_an_image_that_stays_takes_a_few_bytes(tmp_path):
    sizes = []
    for repeats in (1, 20):
        video = VideoFiles(tmp_path / str(repeats), "look", 10.0)
        (image,) = frames(1, (96, 128))
        for number in range(repeats):
            video.add(image, is_new=number == 0)
        video.end_episode()
        video.close()
        sizes.append((tmp_path / f"{repeats}/videos/look/chunk-000/file-000.mp4").stat().st_size)
    assert sizes[1] < 1.2 * sizes[0]


def test_episodes_follow_each_other_in_a_video(tmp_path, monkeypatch):
    images = frames(3, (16, 16))
    video = VideoFiles(tmp_path, "look", 10.0)
    places = []
    for number, image in enumerate(images):
        monkeypatch.setattr(lerobot_files, "VIDEO_MB", 200 if number == 0 else 0)
        video.add(image, is_new=True)
        places.append(tuple(video.end_episode().values()))
    video.close()
    assert places == [(0, 0, 0.0, 0.1), (0, 0, 0.1, 0.2), (0, 1, 0.0, 0.1)]
    assert len(decoded(tmp_path / "videos/look/chunk-000/file-000.mp4")) == 2
    ((_, _, last),) = decoded(tmp_path / "videos/look/chunk-000/file-001.mp4")
    np.testing.assert_array_equal(last, images[2])


def test_a_pyav_without_the_encoder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot_files, "CODEC", "nocodec")
    with pytest.raises(MissingPartError, match=r"cannot encode nocodec .* leave out --video"):
        VideoFiles(tmp_path, "look", 10.0).add(frames(1, (6, 8))[0], is_new=True)


def test_tasks_are_what_our_reader_takes(tmp_path):
    texts = ["a\nb", "", "naïve 😀 \u202e\x00"]
    write_tasks(tmp_path / "tasks.parquet", texts)
    table = pq.read_table(tmp_path / "tasks.parquet")
    assert table.to_pydict() == {"task_index": [0, 1, 2], "task": texts}
    # LeRobot takes texts by the table's index, which only pandas' own note makes of a column.
    about = table.schema.pandas_metadata
    assert about["index_columns"] == ["task"]
    assert [one["field_name"] for one in about["columns"]] == table.schema.names


def test_without_the_packages_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "memorywam_runtime.recordings.lerobot_files")
    with pytest.raises(MissingPartError, match=r"written: .*pip install 'memorywam\[lerobot\]'"):
        importlib.import_module("memorywam_runtime.recordings.lerobot_files")
