"""All numbers that the robot goes by, as a table: from the rules themselves and their docstrings.

`python -m memorywam_robot.doctor_numbers` prints it as robot/NUMBERS.md has it.
"""

import ast
import dataclasses
import inspect
import re
import sys
from typing import Any

from memorywam_robot.arms.guard_rules import GuardRules
from memorywam_robot.arms.limit_rules import LimitRules
from memorywam_robot.cameras.camera_rules import CameraRules
from memorywam_robot.doctor_ticks import TickRules
from memorywam_robot.live.grid_rules import GridRules
from memorywam_robot.live.live_rules import LiveRules
from memorywam_robot.live.load import LoadRules
from memorywam_robot.viewer.view_options import ViewRules

__all__ = ["RULES", "Number", "numbers_of", "numbers_table"]

RULES: tuple[type[Any], ...] = (
    LiveRules,
    LoadRules,
    GridRules,
    CameraRules,
    LimitRules,
    GuardRules,
    TickRules,
    ViewRules,
)
_SOURCE = re.compile(r"(?:\.\s+|^)From:\s+|[;,]\s+from\s+")
_CHOICE = re.compile(r"[.;,:]?\s*\bchoice\b.*$", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One default."""

    rules: str
    name: str
    default: str
    meaning: str
    source: str
    """What it follows; `choice` where it is one of this project."""


def numbers_of(rules: type[Any]) -> list[Number]:
    """Return all defaults of a dataclass with the docstrings below them."""
    (definition,) = ast.parse(inspect.getsource(rules)).body
    assert isinstance(definition, ast.ClassDef)
    said: dict[str, str] = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            said[field.target.id] = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]
    return [
        _number(rules.__name__, field.name, field.default, said.get(field.name, ""))
        for field in dataclasses.fields(rules)
    ]


def numbers_table() -> str:
    """Return all of them as Markdown."""
    lines = ["| number | default | what it is | source |", "|---|---:|---|---|"]
    for rules in RULES:
        lines += [
            f"| `{one.rules}.{one.name}` | {one.default} | {one.meaning} | {one.source} |"
            for one in numbers_of(rules)
        ]
    return "\n".join(lines).replace("|  |", "| |") + "\n"


def _number(rules: str, name: str, default: object, text: str) -> Number:
    """Split a docstring into what a number is and where it comes from."""
    parts = _SOURCE.split(text, maxsplit=1)
    meaning = _CHOICE.sub("", parts[0]).strip().rstrip(".")
    source = parts[1].strip().rstrip(".") if len(parts) > 1 else "choice"
    value = f"{default:g}" if isinstance(default, float) else str(default)
    return Number(
        rules=rules,
        name=name,
        default=value,
        meaning=meaning.replace("|", "\\|"),
        source=source.replace("|", "\\|"),
    )


if __name__ == "__main__":
    sys.stdout.write(numbers_table())
