"""Every feature is answered once, and what an answer rests on is there."""

import argparse
import ast
import functools
import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.features import ANSWERS, FILE, TABLES, Feature, features, table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BEGIN, END = "<!-- features: begin -->\n", "<!-- features: end -->"
ALL = features()
EVIDENCE = sorted({shown for one in ALL for shown in one.shown_by})
TESTS = [shown for shown in EVIDENCE if "::" in shown]
COMMANDS = [shown for shown in EVIDENCE if shown.startswith("memorywam ")]
TARGETS = [shown for shown in EVIDENCE if shown.startswith("make ")]


@functools.cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return each verb with what it takes, as the program makes them."""
    found = {}
    for entry in importlib.metadata.entry_points(group="memorywam.verbs"):
        found[entry.name] = argparse.ArgumentParser(prog=entry.name)
        entry.load()().add_arguments(found[entry.name])
        found[entry.name].add_argument("--json")  # which the program adds to every verb
    return found


@functools.cache
def functions(path: Path) -> set[str]:
    """Return the names of a file's functions; it is not imported."""
    tree = ast.parse(path.read_text() if path.is_file() else "")
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_is_there_once() -> None:
    numbered = [one.row for one in ALL if one.table != "robot"]
    assert numbered == list(range(1, 104))
    assert [one.row for one in ALL if one.table == "robot"] == list(range(1, 57))
    sizes = {key: sum(one.table == key for one in ALL) for key in TABLES}
    assert list(sizes.values()) == [20, 12, 14, 12, 22, 14, 9, 56]
    assert [one.table for one in ALL] == [key for key, size in sizes.items() for _ in range(size)]


def test_an_answer_rests_on_something() -> None:
    for one in ALL:
        _check_answer(one)


def _check_answer(one: Feature) -> None:
    assert one.feature == one.feature.strip()
    assert one.feature[0].isupper()
    assert one.feature[-1] != "."
    assert one.answer in ANSWERS
    assert len(set(one.shown_by)) == len(one.shown_by)
    if one.answer == "no":
        assert not one.shown_by
    else:
        assert one.shown_by
    assert one.note or one.answer == "yes"
    assert "\n" not in one.feature + one.note
    assert "|" not in one.feature


def test_evidence_is_of_three_kinds() -> None:
    assert sorted(TESTS + COMMANDS + TARGETS) == EVIDENCE


def test_every_test_is_there() -> None:
    assert [shown for shown in TESTS if not _is_test(shown)] == []


def _is_test(shown: str) -> bool:
    file, _, name = shown.partition("::")
    is_named = file.startswith("tests/") and Path(file).name.startswith("test_")
    return is_named and name.startswith("test_") and name in functions(ROOT / file)


def test_every_command_is_one() -> None:
    for shown in COMMANDS:
        _, verb, *words = shlex.split(shown)
        known = {option for action in parsers()[verb]._actions for option in action.option_strings}
        assert words, f"{shown}: an option says more than the verb alone"
        wrong = [word for word in words if not word.startswith("--") or word not in known]
        assert not wrong, f"{shown}: {verb} takes {', '.join(sorted(known))}"


def test_make_targets_are_there() -> None:
    assert TARGETS
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for shown in TARGETS:
        assert shown.removeprefix("make ") in targets


def test_the_file_has_a_line_for_each() -> None:
    lines = FILE.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("[", "]")
    assert [json.loads(line.rstrip(","))["feature"] for line in lines[1:-1]] == [
        one.feature for one in ALL
    ]


def test_the_readme_has_the_table() -> None:
    """In its last section but one; `python -m tests.features` prints it."""
    assert README.count(BEGIN) == README.count(END) == 1
    section = README.split("\n## ")[-2]
    assert section[section.index(BEGIN) + len(BEGIN) : section.index(END)] == table()


def test_the_table_counts_them_all() -> None:
    rows = [line.split("|")[1:-1] for line in table().splitlines()[2:]]
    assert [row[0].strip() for row in rows[:-1]] == list(TABLES.values())
    sums = [sum(int(row[column]) for row in rows[:-1]) for column in (1, 2, 3)]
    assert sums == [int(cell) for cell in rows[-1][1:4]]
    assert sum(sums) == len(ALL)


def test_what_is_named_is_no_work_of_others() -> None:
    """All of it speaks of this project alone, and of nobody's files elsewhere."""
    for one in ALL:
        assert not re.search(r"/(work|tmp|root|home)/", one.feature + one.note)


@pytest.mark.proof
def test_what_an_answer_rests_on_can_be_collected() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", *TESTS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
