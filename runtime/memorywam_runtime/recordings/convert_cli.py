"""The verb convert: recordings in, a LeRobot dataset out."""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memorywam_runtime.errors import InputError
from memorywam_runtime.report import Outcome, Progress

if TYPE_CHECKING:
    from memorywam_runtime.recording import Recording
    from memorywam_runtime.recordings.lerobot_dataset import EpisodeWritten

__all__ = ["Convert"]


class Convert:
    """The verb: write recordings as the episodes of a dataset that LeRobot opens."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what to write from what."""
        parser.add_argument(
            "recordings",
            metavar="RECORDING",
            type=Path,
            nargs="+",
            help="a recording of any kind, or a directory of them",
        )
        parser.add_argument(
            "--out",
            metavar="DATASET",
            type=Path,
            required=True,
            help="directory to create: a LeRobot dataset, v3",
        )
        parser.add_argument(
            "--video",
            action="store_true",
            help="images as videos (lossless H.264 in RGB), not as PNG files in the tables",
        )
        parser.add_argument("--overwrite", action="store_true", help="replace a dataset there")

    def run(self, args: argparse.Namespace) -> Outcome:
        """Look at all of them, then write."""
        from memorywam_runtime.files import refuse_occupied
        from memorywam_runtime.recording import open_recordings
        from memorywam_runtime.recordings.lerobot_dataset import write_dataset
        from memorywam_runtime.recordings.lerobot_place import DATASET

        refuse_occupied(args.out, overwrite=args.overwrite, kind=DATASET)
        places = [open_recordings(path) for path in args.recordings]
        _check_sources(places, args.out)
        recordings = list(itertools.chain.from_iterable(places))
        total = sum(one.num_events for one in recordings)
        with Progress("convert", total=total) as progress:
            written = write_dataset(
                recordings,
                args.out,
                as_video=args.video,
                overwrite=args.overwrite,
                told=progress.update,
            )
        return _told(args, recordings, written)


def _check_sources(places: Sequence[Sequence["Recording"]], out: Path) -> None:
    """Refuse a recording that is given twice, or that would be written over.

    Args:
        places: What was found in each place that was named.
        out: The dataset to write.
    """
    known: set[Path] = set()
    # Of a dataset, all episodes have one path: that is not twice.
    for path in (path for found in places for path in dict.fromkeys(one.path for one in found)):
        place = path.resolve()
        if place in known:
            raise InputError(f"found {path} twice; expected each recording once")
        known.add(place)
        if out.resolve() in (place, *place.parents):
            raise InputError(
                f"found {path} as a recording and {out} to write to; expected a directory that "
                "nothing is read from: name another as --out"
            )


def _told(
    args: argparse.Namespace, recordings: list["Recording"], written: list["EpisodeWritten"]
) -> Outcome:
    """Tell what became of each recording."""
    header = recordings[0].header
    num_rows = sum(one.num_rows for one in written)
    num_observed = sum(one.num_observed for one in written)
    num_measured = sum(one.num_measured for one in written)
    kept = [one for one in written if one.num_rows]
    rows, data, index = [], [], 0
    for one in written:
        number = index if one.num_rows else None
        index += bool(one.num_rows)
        name = one.recording.path.name
        remark = "; ".join(_remarks(one))
        rows.append((number, name, one.num_rows, one.num_observed, len(one.tasks), remark))
        data.append(
            {
                "episode_index": number,
                "recording": one.recording.path,
                "kind": one.recording.kind,
                "num_rows": one.num_rows,
                "num_observed": one.num_observed,
                "num_measured": one.num_measured,
                "num_unseen_actions": one.num_unseen,
                "num_unused_observations": one.num_unused,
                "tasks": one.tasks,
                "robot": one.recording.header.robot,
                "damage": one.recording.damage,
                "cut": one.cut,
            }
        )
    how = "videos, lossless" if args.video else "PNG files in the tables, lossless"
    robots = sorted({one.recording.header.robot for one in written})
    note = (
        f"{args.out}: {len(kept)} episodes, {num_rows:,} rows at {header.control_hz:g} a second; "
        f"images of {', '.join(header.cameras)} as {how}\n"
        f"{num_observed:,} rows have images of their own (column observed_step), "
        f"{num_measured:,} a joint state; the others repeat the newest; left out: chunks, what "
        "memory took, seeds and hashes"
    )
    if len(robots) > 1:
        note += f"\nof several robots: {', '.join(map(repr, robots))}"
    return Outcome(
        ok=True,
        headers=("episode", "recording", "rows", "observed", "tasks", "remark"),
        rows=rows,
        data={
            "out": args.out,
            "fps": header.control_hz,
            "cameras": header.cameras,
            "images": "video" if args.video else "image",
            "num_episodes": len(kept),
            "num_rows": num_rows,
            "num_observed": num_observed,
            "num_measured": num_measured,
            "recordings": data,
        },
        note=note,
    )


def _remarks(one: "EpisodeWritten") -> list[str]:
    """Return what is to be known of an episode."""
    from memorywam_runtime.recording import SHADOW

    found = [] if one.num_rows else ["LEFT OUT: no action follows an observation"]
    if one.recording.header.robot.startswith(SHADOW):
        found.append("SHADOW: actions are what the arms did")
    if one.recording.damage is not None:
        found.append(f"DAMAGED: {one.recording.damage}")
    if one.cut is not None:
        found.append(f"CUT: {one.cut}")
    if one.num_unseen:
        found.append(f"{one.num_unseen} actions before the first observation left out")
    if one.num_unused:
        found.append(f"{one.num_unused} observations after the last action left out")
    return found
