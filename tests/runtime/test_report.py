"""Tables, JSON, and a progress line that keeps quiet."""

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest

from memorywam_runtime.report import Outcome, Progress, format_table, json_from_data
from memorywam_runtime.versions import PACKAGES, version_of, versions


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that Progress reads."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


def test_a_table_aligns_numbers_right_and_text_left() -> None:
    table = format_table(("name", "ms"), [("encode", 3.14159), ("act", 12000)])
    assert table.splitlines() == [
        "name       ms",
        "------  -----",
        "encode  3.142",
        "act     12000",
    ]


def test_a_table_without_rows_is_its_headers() -> None:
    assert format_table(("a", "bb"), []).splitlines() == ["a  bb", "-  --"]


def test_an_absent_cell_is_empty_and_lines_end_without_blanks() -> None:
    table = format_table(("a", "b"), [("x", None), (None, "y")])
    assert table.splitlines() == ["a  b", "-  -", "x", "   y"]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 cells"):
        format_table(("a", "b"), [("x",)])


def test_json_takes_arrays_paths_and_what_is_not_finite() -> None:
    data = {
        "array": np.arange(3, dtype=np.int64),
        "scalar": np.float32(0.5),
        "bad": [float("nan"), np.float64("-inf")],
        "path": Path("a/b"),
        "pair": (True, None),
        3: "key",
    }
    assert json.loads(json_from_data(data)) == {
        "array": [0, 1, 2],
        "scalar": 0.5,
        "bad": ["nan", "-inf"],
        "path": "a/b",
        "pair": [True, None],
        "3": "key",
    }


def test_json_refuses_what_has_no_form() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        json_from_data({"a": object()})


def test_an_outcome_needs_only_its_verdict() -> None:
    assert Outcome(ok=True).data == {}


def test_progress_is_silent_for_two_seconds(clock: Clock) -> None:
    terminal = Terminal()
    with Progress("export", total=3, stream=terminal) as progress:
        clock.now_s += 1.9
        progress.update(1, "graphs")
    assert terminal.getvalue() == ""


def test_progress_shows_after_two_seconds_and_clears_its_line(clock: Clock) -> None:
    terminal = Terminal()
    with Progress("export", total=3, stream=terminal) as progress:
        clock.now_s += 2.5
        progress.update(1, "graphs")
        shown = "export: 1/3  2 s  graphs"
        assert terminal.getvalue() == "\r" + shown
        clock.now_s += 0.05
        progress.update(2)
        assert terminal.getvalue() == "\r" + shown
    assert terminal.getvalue() == "\r" + shown + "\r" + " " * len(shown) + "\r"


def test_progress_is_silent_where_nobody_looks(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress("export", stream=stream) as progress:
        clock.now_s += 60
        progress.update(1)
    assert stream.getvalue() == ""


def test_versions_name_what_is_installed_and_only_that() -> None:
    found = versions()
    assert found["numpy"] == np.__version__
    assert {"python", "machine", "memorywam"} <= set(found)
    assert set(found) - {"python", "machine"} == {
        package for package in PACKAGES if version_of(package) is not None
    }
