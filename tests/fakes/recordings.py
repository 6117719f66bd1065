"""Recordings of every kind, small, written from scratch: what readers are tried on."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from memorywam_runtime.images import png_from_image
from memorywam_runtime.observation import Observation
from memorywam_runtime.recording import (
    Acted,
    Ending,
    Event,
    Header,
    Observed,
    Provenance,
    Remembered,
    Sent,
)
from memorywam_runtime.recordings.recording_mcap import McapRecorder
from memorywam_runtime.recordings.recording_messages import (
    SCHEMA_VERSION,
    StartMessage,
    time_from_ns,
)

__all__ = [
    "CAMERAS",
    "FPS",
    "events_of",
    "header",
    "image_at",
    "mcap_bytes",
    "same",
    "start_message",
    "write_folder",
    "write_lerobot",
]

CAMERAS = ("head", "wrist")
FPS = 10
DIM = 3


def image_at(camera: str, step: int, shape: tuple[int, int] = (6, 8)) -> np.ndarray:
    rng = np.random.default_rng((CAMERAS.index(camera), step))
    return rng.integers(0, 256, (*shape, 3), np.uint8)


def state_at(step: int) -> np.ndarray:
    return np.random.default_rng((7, step)).standard_normal(DIM)


def header(**changes: object) -> Header:
    fields = {
        "instruction": "press « the » button",
        "seed": 11,
        "max_steps": 8,
        "control_hz": 10.0,
        "cameras": CAMERAS,
        "state_dim": DIM,
        "action_dim": DIM,
        "action_names": ("a", "b", "c"),
        "robot": "sim:fake",
    }
    return Header(**(fields | changes))  # type: ignore[arg-type]


def start_message(**changes: object) -> StartMessage:
    return StartMessage(
        schema_version=SCHEMA_VERSION,
        header=header(**changes),
        provenance=Provenance(
            contract_hash="c" * 64,
            checkpoint_sha256="d" * 64,
            manifest_sha256="e" * 64,
            backend="ort",
            num_threads=1,
            num_denoising_steps=10,
            hidden=("gists",),
            versions=("python==3.11",),
        ),
        monotonic=time_from_ns(5_000_000_123),
        wall=time_from_ns(1_750_000_000_000_000_456),
    )


def ending(**changes: object) -> Ending:
    fields = {
        "success": "yes",
        "remark": "pressed it",
        "num_steps": 8,
        "num_frames": 2,
        "num_dropped": 0,
        "memory_digest": "a" * 64,
    }
    return Ending(**(fields | changes))  # type: ignore[arg-type]


def events_of(num_frames: int = 2, stride: int = 4) -> list[Event]:
    """Return an episode: an observation, a frame, a chunk, then the actions, and so on."""
    events: list[Event] = []
    now_ns = 6_000_000_000
    for frame in range(num_frames):
        step = frame * stride
        now_ns += 100_000_001
        seen = Observation(
            images={name: image_at(name, step) for name in CAMERAS}, state=state_at(step), step=step
        )
        events.append(Observed(observation=seen, captured_ns=now_ns - 999, received_ns=now_ns))
        events.append(
            Remembered(
                frame=frame, steps=(step,), slot=frame % 2, evicted=frame - 2 if frame > 1 else -1,
                num_gists=frame + 1, memory_digest="", received_ns=now_ns + 1,
            )
        )  # fmt: skip
        chunk = np.random.default_rng((9, frame)).standard_normal((stride, DIM))
        events.append(Acted(frame=frame, state=state_at(step), chunk=chunk, received_ns=now_ns + 2))
        events += [
            Sent(
                step=step + k + 1, action=chunk[k], received_ns=now_ns + 3 + k,
                state=state_at(500 + step + k) if k % 2 else None,
            )
            for k in range(stride)
        ]  # fmt: skip
    return events


def mcap_bytes(
    events: Sequence[Event],
    *,
    ends: bool = True,
    flush_every: int = 3,
    left_out: int = 0,
    **changes: object,
) -> bytes:
    """Return a whole file, in several compressed blocks; one event may be left out."""
    stream = io.BytesIO()
    recorder = McapRecorder(stream, start_message(**changes))
    for number, event in enumerate(events, 1):
        if number != left_out:
            recorder.write(number, event)
        if number % flush_every == 0:
            recorder.flush()
    recorder.finish(len(events) + 1, ending() if ends else None, 9_000_000_000)
    return stream.getvalue()


def same(first: Event, second: Event) -> bool:
    """Are two events the same, bit for bit?"""
    return _plain(first) == _plain(second)


def _plain(event: Event) -> tuple[object, ...]:
    if isinstance(event, Observed):
        seen = event.observation
        images = [(name, image.shape, image.tobytes()) for name, image in seen.images.items()]
        times = (event.captured_ns, event.received_ns)
        return ("observed", seen.step, seen.state.tobytes(), sorted(images), times)
    if isinstance(event, Acted):
        return ("acted", event.frame, event.state.tobytes(), event.chunk.tobytes(),
                event.chunk.shape, event.received_ns)  # fmt: skip
    if isinstance(event, Sent):
        return ("sent", event.step, event.action.tobytes(), event.received_ns)
    return ("remembered", event)


def write_folder(root: Path, *, num_steps: int = 8, stride: int = 4, csv: bool = False) -> Path:
    """Write a plain folder with an image at every stride-th step."""
    root.mkdir(parents=True)
    about = {
        "instruction": "stack",
        "control_hz": 10.0,
        "robot": "hand",
        "action_names": list("abc"),
    }
    (root / "recording.json").write_text(json.dumps(about))
    for camera in CAMERAS:
        folder = root / "images" / camera
        folder.mkdir(parents=True)
        for step in range(0, num_steps + 1, stride):
            (folder / f"{step:06d}.png").write_bytes(png_from_image(image_at(camera, step)))
    states = np.array([state_at(step) for step in range(num_steps + 1)])
    actions = np.array([state_at(100 + step) for step in range(num_steps)])
    if csv:
        for name, values in (("states", states), ("actions", actions)):
            lines = ["a,b,c", *(",".join(map(repr, row)) for row in values.tolist())]
            (root / f"{name}.csv").write_text("\n".join(lines) + "\n")
    else:
        np.save(root / "states.npy", states)
        np.save(root / "actions.npy", actions)
    return root


def write_lerobot(
    root: Path,
    *,
    lengths: Sequence[int] = (9, 7),
    video: bool = True,
    shape: tuple[int, int] = (32, 48),
    dim: int = DIM,
    cameras: Sequence[str] = CAMERAS,
    image_of=None,
    named_tasks: bool = True,
) -> Path:
    """Write a dataset in the layout of version 3: two episodes share each file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = image_of or (lambda camera, episode, step: _flat(cameras.index(camera), step, shape))
    (root / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    (root / "data" / "chunk-000").mkdir(parents=True)
    info = _lerobot_info(lengths, cameras, video=video, shape=shape, dim=dim)
    (root / "meta" / "info.json").write_text(json.dumps(info, indent=4))
    texts = "task" if named_tasks else "__index_level_0__"
    tasks = {"task_index": [0, 1], texts: ["pick it up", "put it down"]}
    pq.write_table(pa.table(tasks), root / "meta" / "tasks.parquet")
    rows = _lerobot_rows(lengths, cameras, dim, None if video else picture)
    vector = pa.list_(pa.float32(), dim)
    schema = pa.schema(
        [("observation.state", vector), ("action", vector), ("timestamp", pa.float32())]
        + [(n, pa.int64()) for n in ("frame_index", "episode_index", "index", "task_index")]
        + [(f"observation.images.{n}", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
           for n in cameras if not video]
    )  # fmt: skip
    file = Path("chunk-000") / "file-000.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), root / "data" / file)
    entries = _lerobot_episodes(lengths, cameras, video=video)
    pq.write_table(pa.Table.from_pylist(entries), root / "meta" / "episodes" / file)
    steps = [(e, s) for e, length in enumerate(lengths) for s in range(length)]
    for name in cameras if video else ():
        path = root / "videos" / f"observation.images.{name}" / "chunk-000" / "file-000.mp4"
        path.parent.mkdir(parents=True)
        _write_video(path, [picture(name, e, s) for e, s in steps])
    return root


def _lerobot_info(lengths, cameras, *, video, shape, dim):
    """What `meta/info.json` holds."""
    motors = [f"m{k}" for k in range(dim)]
    features = {
        "observation.state": {"dtype": "float32", "shape": [dim], "names": None},
        "action": {"dtype": "float32", "shape": [dim], "names": {"motors": motors}},
        **{f"observation.images.{name}": {"dtype": "video" if video else "image",
           "shape": [*shape, 3], "names": ["height", "width", "channels"]} for name in cameras},
        **{name: {"dtype": "int64", "shape": [1], "names": None}
           for name in ("frame_index", "episode_index", "index", "task_index")},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    }  # fmt: skip
    return {
        "codebase_version": "v3.0", "robot_type": "so100", "total_episodes": len(lengths),
        "total_frames": sum(lengths), "total_tasks": 2, "chunks_size": 1000,
        "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": FPS,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        if video else None,
        "features": features,
    }  # fmt: skip


def _lerobot_rows(lengths, cameras, dim, picture):
    """One row a step; with its images, unless they are in videos."""
    rows = []
    for episode, length in enumerate(lengths):
        start = sum(lengths[:episode])
        for step in range(length):
            row = {
                "observation.state": _values(episode, step, dim),
                "action": _values(10 + episode, step, dim),
                "timestamp": step / FPS, "frame_index": step, "episode_index": episode,
                "index": start + step, "task_index": episode % 2,
            }  # fmt: skip
            for name in cameras if picture else ():
                content = png_from_image(picture(name, episode, step))
                row[f"observation.images.{name}"] = {"bytes": content, "path": None}
            rows.append(row)
    return rows


def _lerobot_episodes(lengths, cameras, *, video):
    """One entry an episode: where its rows are, and its part of each video."""
    entries = []
    for episode, length in enumerate(lengths):
        start = sum(lengths[:episode])
        entry = {
            "episode_index": episode, "tasks": ["x"], "length": length, "data/chunk_index": 0,
            "data/file_index": 0, "dataset_from_index": start, "dataset_to_index": start + length,
        }  # fmt: skip
        for name in cameras if video else ():
            key = f"videos/observation.images.{name}"
            entry |= {
                f"{key}/chunk_index": 0, f"{key}/file_index": 0,
                f"{key}/from_timestamp": start / FPS,
                f"{key}/to_timestamp": (start + length) / FPS,
            }  # fmt: skip
        entries.append(entry)
    return entries


def _values(episode: int, step: int, dim: int) -> list[float]:
    values = np.random.default_rng((episode, step)).standard_normal(dim).astype(np.float32)
    return [float(value) for value in values]


def _flat(camera: int, step: int, shape: tuple[int, int]) -> np.ndarray:
    """One grey a step: what a lossy codec keeps well enough to tell steps apart."""
    return np.full((*shape, 3), 20 + 12 * step + 3 * camera, np.uint8)


def _write_video(file: Path, frames: Sequence[np.ndarray]) -> None:
    import av

    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.gop_size = 4
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
