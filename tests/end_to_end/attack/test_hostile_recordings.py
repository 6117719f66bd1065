"""Recordings of every kind, damaged at random and by hand: read up to the damage, or refused."""

import io
import json
import os
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")
pytest.importorskip("h5py", reason="needs the extra memorywam[hdf5]")
pytest.importorskip("pyarrow", reason="needs the extra memorywam[lerobot]")
pytest.importorskip("av", reason="needs the extra memorywam[lerobot]")

import h5py
import pyarrow as pa
import pyarrow.parquet as pq
from mcap.writer import Writer
from tests.end_to_end.attack.mutations import (
    NO_FILES,
    damaged,
    document_bytes,
    edited,
    fuzzed,
    lawful,
)
from tests.fakes.hdf5 import write_hdf5
from tests.fakes.recordings import (
    events_of,
    mcap_bytes,
    start_message,
    write_folder,
    write_lerobot,
)

from memorywam_runtime.errors import InputError
from memorywam_runtime.images import image_from_bytes
from memorywam_runtime.recording import open_recording, open_recordings
from memorywam_runtime.recordings import recording_lerobot
from memorywam_runtime.recordings.recording_mcap import PROFILE

MOST_BYTES = 64 << 20
"""That reading a file of kilobytes may take, beyond what the file is."""


def read_all(path: Path) -> int:
    """Read a recording to its end."""
    return sum(1 for _ in open_recording(path).events())


def refused(path: Path, complaint: str) -> None:
    """See that a recording is refused for the right reason, before it takes any room."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=complaint):
            read_all(path)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()


def mcap_of(messages: list[tuple[str, bytes]]) -> bytes:
    """Return an MCAP file with these messages, all checksums right."""
    stream = io.BytesIO()
    writer = Writer(stream, enable_data_crcs=True)
    writer.start(profile=PROFILE)
    channels: dict[str, int] = {}
    for number, (topic, data) in enumerate(messages):
        if topic not in channels:
            channels[topic] = writer.register_channel(topic, "json", 0)
        writer.add_message(channels[topic], number, data, number, max(0, number - 2))
    writer.finish()
    return stream.getvalue()


def start_document() -> Any:
    """Return the first message of a recording."""
    return json.loads(msgspec.json.encode(start_message()))


VECTOR = {"values": [0.1, 0.2, 0.3], "not_finite": [1]}
MESSAGES: list[tuple[str, Any]] = [
    ("/episode/start", start_document()),
    ("/memory", {"what": "reset"}),
    ("/memory", {"what": "remembered", "frame": 0, "slot": 0, "steps": [0], "num_frames": 1}),
    ("/chunk", {"frame": 0, "state": VECTOR, "actions": [VECTOR, VECTOR], "prefix": [VECTOR]}),
    ("/action", {"step": 1, "targets": VECTOR, "state": VECTOR}),
    ("/state", {"step": 1, "cameras": [], "positions": VECTOR}),
    ("/episode/end", {"ending": {
        "success": "yes", "remark": "", "num_steps": 1, "num_frames": 1, "num_dropped": 0,
        "memory_digest": "",
    }}),
]  # fmt: skip


def mcap_of_documents(messages: Any) -> bytes:
    """Return an MCAP file with messages that were edited; what is no pair any more is left out."""
    pairs = [one for one in messages if isinstance(one, list | tuple) and len(one) == 2]
    return mcap_of([(str(one).replace("\ud800", "?"), document_bytes(two)) for one, two in pairs])


def hdf5_episode(root: Path) -> Path:
    """Write a small episode."""
    rng = np.random.default_rng(0)
    joints = {
        "left_arm": rng.standard_normal((3, 2)), "left_gripper": rng.random(3),
        "right_arm": rng.standard_normal((3, 2)), "right_gripper": rng.random(3),
    }  # fmt: skip
    pictures = {"head_camera": [np.full((8, 8, 3), step, np.uint8) for step in range(3)]}
    return write_hdf5(root / "data" / "one.hdf5", pictures, joints)


def kinds(root: Path) -> dict[str, tuple[Path, Path]]:
    """Write a recording of each kind: what is damaged of it, and what is then read."""
    (root / "m").mkdir()
    mcap = root / "m" / "one.mcap"
    mcap.write_bytes(mcap_bytes(events_of()))
    hdf5, lerobot = hdf5_episode(root / "h"), write_lerobot(root / "l")
    folder, text = write_folder(root / "f" / "one"), write_folder(root / "c" / "one", csv=True)
    chunk = Path("chunk-000") / "file-000.parquet"
    return {
        "mcap": (mcap, mcap),
        "hdf5": (hdf5, hdf5),
        "npy": (folder / "states.npy", folder),
        "png": (folder / "images" / "head" / "000004.png", folder),
        "csv": (text / "states.csv", text),
        "rows": (lerobot / "data" / chunk, lerobot),
        "episodes": (lerobot / "meta" / "episodes" / chunk, lerobot),
        "tasks": (lerobot / "meta" / "tasks.parquet", lerobot),
        "video": (next(lerobot.glob("videos/*/*/*.mp4")), lerobot),
    }


KINDS = ("mcap", "hdf5", "npy", "png", "csv", "rows", "episodes", "tasks", "video")


def attack(name: str, root: Path, *, count: int, is_guided: bool = False) -> None:
    """Damage one file of a recording again and again."""
    file, recording = kinds(root)[name]
    whole = file.read_bytes()
    assert read_all(recording) > 0

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return read_all(recording)

    num_read = fuzzed(read, [whole], damaged, count=count, name=name, is_guided=is_guided)
    assert num_read < count or name == "video"


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    attack(name, tmp_path, count=40)


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_files_are_read_or_refused(name: str, tmp_path: Path) -> None:
    attack(name, tmp_path, count=3000, is_guided=name not in ("video", "hdf5"))


@pytest.mark.parametrize("count", [150, pytest.param(20_000, marks=pytest.mark.proof)])
def test_whole_files_of_hostile_messages_are_read_or_refused(count: int, tmp_path: Path) -> None:
    path = tmp_path / "one.mcap"

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return read_all(path)

    assert read(mcap_of_documents(MESSAGES)) == 4
    original = [[list(one) for one in MESSAGES]]
    fuzzed(read, original, edited, count=count, name="messages", encode=mcap_of_documents)


@pytest.mark.parametrize("name", ["recording.json", "meta/info.json"])
def test_hostile_fields_of_a_recording_are_read_or_refused(name: str, tmp_path: Path) -> None:
    root = tmp_path / "one"
    (write_folder if name == "recording.json" else write_lerobot)(root)
    document = json.loads((root / name).read_bytes())

    def read(content: bytes) -> object:
        (root / name).write_bytes(content)
        return [sum(1 for _ in one.events()) for one in open_recordings(root)]

    fuzzed(read, [document], edited, count=100, name=name, encode=document_bytes)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"control_hz": 1e-308}, "1e-308 steps a second"),
        ({"control_hz": -1.0}, "-1 steps a second"),
        ({"control_hz": 1e300}, "1e\\+300 steps a second"),
        ({"state_dim": 10**12}, "state_dim 1000000000000"),
        ({"action_dim": -1}, "action_dim -1"),
        ({"max_steps": 10**30}, "max_steps 1000"),
        ({"cameras": ["a", "a"]}, "expected each once"),
        ({"cameras": list(map(str, range(17)))}, "cameras 17"),
        ({"action_names": ["a"]}, "1 action_names for actions of 3"),
    ],
)
def test_a_header_that_cannot_be_true_is_refused(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    start = start_document()
    start["header"] |= change
    path = tmp_path / "one.mcap"
    path.write_bytes(mcap_of([("/episode/start", document_bytes(start))]))
    refused(path, complaint)


@pytest.mark.parametrize("short", ["targets", "state"])
def test_joints_that_the_header_does_not_have_end_the_recording(short: str, tmp_path: Path) -> None:
    path = tmp_path / "one.mcap"
    action = {"step": 2, "targets": VECTOR, short: {"values": [0.0], "not_finite": []}}
    path.write_bytes(mcap_of_documents([*MESSAGES[:5], ("/action", action), *MESSAGES[5:]]))
    found = open_recording(path)
    assert found.damage is not None
    assert "step 2 is of 1 joints; the header has 3" in found.damage


@pytest.mark.parametrize("change", NO_FILES)
@pytest.mark.parametrize(
    "name", ["recording.json", "states.npy", "images/head/000004.png", "meta/info.json"]
)
@pytest.mark.timeout(60)
def test_what_is_no_file_is_refused(
    name: str, change: Callable[[Path], None], tmp_path: Path
) -> None:
    root = tmp_path / "one"
    (write_lerobot if name.startswith("meta") else write_folder)(root)
    change(root / name)
    assert lawful(lambda: read_all(root), name)


def test_an_archive_in_place_of_numbers_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "one")
    with (root / "states.npy").open("wb") as stream:
        np.savez_compressed(stream, states=np.zeros((8, 3)))
    refused(root, "does not begin as .npy files do")


def test_small_numbers_that_become_large_are_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "one")
    header = np.lib.format.header_data_from_array_1_0(np.zeros(1, np.int8))
    with (root / "states.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header | {"shape": ((1 << 28), 3)})
        stream.truncate(stream.tell() + 3 * (1 << 28))
    refused(root, "numbers; expected at most")


def test_a_table_of_text_has_a_bound(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "one", csv=True)
    os.truncate(root / "states.csv", (1 << 26) + 1)
    refused(root, "expected at most 67,108,864")


@pytest.mark.parametrize("rate_hz", [1e-308, 1e300, 0.0])
def test_no_recording_has_such_a_rate(rate_hz: float, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "one")
    about = json.loads((root / "recording.json").read_bytes()) | {"control_hz": rate_hz}
    (root / "recording.json").write_text(json.dumps(about))
    refused(root, "steps a second")


def test_numbers_that_were_never_written_are_not_made(tmp_path: Path) -> None:
    path = hdf5_episode(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["joint_action/vector"]
        file.create_dataset("joint_action/vector", (1 << 20, 1 << 10), "f8", chunks=(1024, 64))
    assert path.stat().st_size < 1 << 20
    refused(path, "numbers at joint_action/vector; expected at most")


@pytest.mark.parametrize("column", ["timestamp", "task_index"])
def test_a_row_without_numbers_is_refused(column: str, tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "one")
    file = root / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(file)
    wrong = pa.array([[float("nan")]] * len(table)) if column == "task_index" else None
    wrong = pa.array([float("nan")] * len(table)) if wrong is None else wrong
    pq.write_table(table.set_column(table.column_names.index(column), column, wrong), file)
    refused(root, f"has {column}")


def test_rows_without_an_end_are_not_gathered(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "one")
    file = root / "data" / "chunk-000" / "file-000.parquet"
    row = pq.read_table(file).slice(0, 1)
    many = pa.concat_tables([row] * 1000).combine_chunks()
    with pq.ParquetWriter(file, row.schema) as writer:
        for _ in range(100):
            writer.write_table(many)
    refused(root, "rows of data; expected 9")


def test_a_column_that_unpacks_to_far_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_lerobot, "_MAX_VALUES", 1 << 16)
    root = write_lerobot(tmp_path / "one")
    file = root / "data" / "chunk-000" / "file-000.parquet"
    table = pq.read_table(file).slice(0, 1)
    values = pa.array(np.zeros((1 << 16) + 1, np.float32))
    bomb = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    place = table.column_names.index("observation.state")
    pq.write_table(table.set_column(place, "observation.state", bomb), file)
    assert file.stat().st_size < 1 << 15
    refused(root, "65,537 values")


def test_a_playlist_is_no_video(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "one")
    video = next(root.glob("videos/*head*/*/*.mp4"))
    elsewhere = tmp_path / "elsewhere.mp4"
    video.rename(elsewhere)
    video.write_text(f"ffconcat version 1.0\nfile {elsewhere.name}\n")
    (video.parent / elsewhere.name).symlink_to(elsewhere)
    refused(root, "cannot be read")


def png(columns: int, rows: int, pieces: bytes = b"") -> bytes:
    """Return a PNG file that claims a size, whatever it holds."""

    def piece(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    head = columns.to_bytes(4, "big") + rows.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
    body = piece(b"IDAT", zlib.compress(bytes(1 << 20), 9))
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", head) + pieces + body + piece(b"IEND", b"")


@pytest.mark.parametrize("size", [(1 << 30, 1 << 30), (0, 0), (1 << 14, 1 << 13)])
def test_an_image_of_an_absurd_size_is_not_decoded(size: tuple[int, int]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="an image"):
            image_from_bytes(png(*size), "an image")
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
