"""RunReport: what `run --json` writes, read back; and the page about it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from memorywam_robot.summary_deadlines import misses_section, ticks_section
from memorywam_robot.summary_report import RunReport
from memorywam_robot.summary_sections import (
    cameras_section,
    chunks_section,
    episodes_section,
    instructions_section,
    memory_section,
    reasons_section,
    seams_section,
    stages_section,
    success_text,
    times_section,
)
from memorywam_robot.summary_shadow import shadow_section
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_write
from memorywam_runtime.pages import document
from memorywam_runtime.report import json_from_data

__all__ = ["RunReport", "report_from_data", "report_from_json", "summary_html", "summary_page"]


def report_from_data(data: Mapping[str, Any]) -> RunReport:
    """Return the data of a run's outcome as a report.

    Raises:
        InputError: it is not that.
    """
    return _converted(json.loads(json_from_data(data)))


def report_from_json(text: str | bytes) -> RunReport:
    """Return what `memorywam run --json FILE` wrote.

    Raises:
        InputError: it is something else.
    """
    try:
        document = json.loads(text)
        if document["verb"] != "run":
            raise InputError(f"found what '{document['verb']}' wrote; expected run --json")
        return _converted(document["data"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"this is not what run --json writes: {error}") from error


def summary_page(report: RunReport, path: Path) -> None:
    """Write the page, whole or not at all."""
    atomic_write(path, summary_html(report).encode())


def summary_html(report: RunReport) -> str:
    """Return one page that needs nothing but itself."""
    cards = [
        episodes_section(report),
        instructions_section(report),
        shadow_section(report),
        ticks_section(report),
        seams_section(report),
        times_section(report),
        stages_section(report),
        memory_section(report),
        chunks_section(report),
        misses_section(report),
        cameras_section(report),
        reasons_section(report),
    ]
    body = "\n".join(card for card in cards if card)
    return document("memorywam run", f'{success_text(report)}\n<div class="cards">{body}</div>')


def _converted(data: Any) -> RunReport:  # noqa: ANN401 -- JSON of any shape
    try:
        # Not strict: a number that is not finite is text in strict JSON.
        return msgspec.convert(data, RunReport, strict=False)
    except msgspec.ValidationError as error:
        raise InputError(f"this is not what run --json writes: {error}") from error
