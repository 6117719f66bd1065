"""What the project has of what its users ask for: `tests/FEATURES.json`, and the README's table.

`python -m tests.features` prints the table.
"""

import sys
from collections import Counter
from pathlib import Path

import msgspec

__all__ = ["ANSWERS", "TABLES", "Feature", "features", "table"]

FILE = Path(__file__).with_name("FEATURES.json")
TABLES = {
    "A": "Model to graph",
    "B": "Engines, bundle, compatibility",
    "C": "Parity and verification",
    "D": "Quantization and calibration",
    "E": "On-robot runtime",
    "F": "Cameras",
    "G": "Measurement and project",
    "robot": "On the robot",
}
ANSWERS = ("yes", "partly", "no")


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that is asked for, and whether it is here."""

    table: str
    row: int
    """Tables A to G are numbered through; the robot's begins anew."""
    feature: str
    answer: str
    """yes: what runs here shows it. partly: some of it is missing, or it is about hardware that
    none of this has run on. no: absent."""
    shown_by: tuple[str, ...]
    """Tests (`FILE::NAME`), verbs with the options that it takes, make targets."""
    note: str
    """What is missing, or what was measured."""


def features() -> list[Feature]:
    """Return all of them, in their order."""
    return msgspec.json.decode(FILE.read_bytes(), type=list[Feature])


def table() -> str:
    """Return the README's table."""
    found = features()
    lines = ["| | yes | partly | no | not there at all |", "|---|---:|---:|---:|---|"]
    for key, title in TABLES.items():
        rows = [one for one in found if one.table == key]
        counts = Counter(one.answer for one in rows)
        absent = "; ".join(one.feature[0].lower() + one.feature[1:] for one in rows if _is_no(one))
        figures = " | ".join(str(counts[answer]) for answer in ANSWERS)
        lines.append(f"| {title} | {figures} | {absent} |".replace("|  |", "| |"))
    total = Counter(one.answer for one in found)
    lines.append(f"| all {len(found)} | {' | '.join(str(total[one]) for one in ANSWERS)} | |")
    return "\n".join(lines) + "\n"


def _is_no(one: Feature) -> bool:
    return one.answer == "no"


if __name__ == "__main__":
    sys.stdout.write(table())
