"""Drafts: those of killed writers are removed by the next one, and nothing else is."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memorywam_runtime import drafts
from memorywam_runtime.drafts import is_draft, new_draft
from memorywam_runtime.files import atomic_directory, atomic_write

HEX = "0123456789ab"

WRITER = """
import sys
from memorywam_runtime import files

target, kind = sys.argv[1:]
if kind == "directory":
    with files.atomic_directory(target) as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "half").write_bytes(b"half")
        print("writing", flush=True)
        sys.stdin.read()
else:
    def wait(descriptor):
        print("writing", flush=True)
        sys.stdin.read()

    files.os.fsync = wait
    files.atomic_write(target, b"half")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where drafts lie."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def writing(target: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process write, and stop in the middle until it is let go on."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target), kind],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            yield process
        finally:
            process.kill()


def write(target: Path, kind: str) -> None:
    """Write a file or a directory."""
    if kind == "directory":
        with atomic_directory(target) as draft:
            (draft / "whole").write_text("whole")
    else:
        atomic_write(target, b"whole")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_the_next_writer_removes_the_draft_of_a_killed_one(
    folder: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = folder / "out [1].*"
    with writing(target, kind) as dead:
        dead.send_signal(signal.SIGKILL)
        dead.wait()
    (draft,) = names_in(folder)
    assert is_draft(draft)
    write(folder / "out", kind)
    assert names_in(folder) == [draft, "out"]
    assert caplog.records == []
    write(target, kind)
    assert names_in(folder) == ["out", target.name]
    (record,) = caplog.records
    assert record.getMessage().startswith(f"removed {folder / draft}, the draft of a job")


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_the_draft_of_a_writer_that_lives_is_spared(
    folder: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = folder / "out"
    with writing(target, kind) as living:
        (draft,) = names_in(folder)
        write(target, kind)
        assert names_in(folder) == [draft, "out"]
        living.communicate("")
        # A directory that was filled meanwhile is not replaced.
        assert (living.returncode == 0) is (kind == "file")
    assert names_in(folder) == ["out"]
    assert caplog.records == []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_only_looks_like_a_draft_is_left_alone(
    folder: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    strangers = [
        f".out.{HEX}.draft.bak", f".out.{HEX[1:]}.draft", f".out.{HEX.upper()}.draft",
        f"out.{HEX}.draft", f".out.{HEX}.old", f".output.{HEX}.draft", f".x.out.{HEX}.draft",
        f".out.{HEX}.draft\n",
    ]  # fmt: skip
    for name in strangers:
        (folder / name).write_text("")
    (folder / ".out.aaaaaaaaaaaa.draft").symlink_to(elsewhere)
    (folder / ".out.bbbbbbbbbbbb.draft").symlink_to(elsewhere / "mine")
    os.mkfifo(folder / ".out.cccccccccccc.draft")
    inside = folder / ".out.dddddddddddd.draft"
    inside.mkdir()
    (inside / "link").symlink_to(elsewhere)
    before = names_in(folder)
    write(folder / "out", kind)
    assert names_in(folder) == sorted({*before, "out"} - {inside.name})
    assert (elsewhere / "mine").read_text() == "mine"
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_both_kinds_of_a_name_are_removed_by_either(folder: Path) -> None:
    (folder / f".out.{HEX}.draft").mkdir()
    (folder / ".out.aaaaaaaaaaaa.draft").write_text("")
    atomic_write(folder / "out", b"")
    assert names_in(folder) == ["out"]


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_draft_that_is_swept_before_it_is_locked_is_made_anew(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the other writer has removed it by then, or is about to."""
    flock = fcntl.flock
    held: list[int] = []
    swept: list[str] = []

    def race(descriptor: int, operation: int) -> None:
        (last,) = set(names_in(folder)) - set(swept)
        swept.append(last)
        if len(swept) == 1:
            held.append(os.open(folder / last, os.O_RDONLY))
            flock(held[0], operation)
        elif len(swept) == 2:
            (folder / last).rmdir() if kind == "directory" else (folder / last).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", race)
    with new_draft(folder / "out", is_directory=kind == "directory") as (draft, _):
        assert draft.exists()
        assert len(swept) == 3
    os.close(held[0])


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_where_a_file_system_has_no_locks_nothing_is_removed(
    folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (folder / f".out.{HEX}.draft").write_text("")
    write(folder / "out", kind)
    assert names_in(folder) == [f".out.{HEX}.draft", "out"]


def test_the_bundle_that_is_replaced_is_no_draft_before_the_new_one_is_in_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, the old one is all that there is under a name of its own."""
    target = folder / "out"
    target.mkdir()
    (target / "manifest.json").write_text('{"contract_hash": "", "files": []}')
    rename = Path.rename
    seen: list[list[str]] = []

    def watched(self: Path, to: Path) -> Path:
        moved = rename(self, to)
        seen.append(names_in(folder))
        return moved

    monkeypatch.setattr(Path, "rename", watched)
    with atomic_directory(target, overwrite=True) as draft:
        (draft / "new").write_text("new")
    aside, placed, ended = (sum(is_draft(name) for name in names) for names in seen)
    assert (aside, placed, ended) == (1, 0, 1)
    assert [name.endswith(".old") for name in seen[0]].count(True) == 1
    assert names_in(folder) == ["out"]


def test_a_draft_that_is_filled_by_two_layers_keeps_its_lock(folder: Path) -> None:
    """As in calibration: quantizing writes a bundle into one that is being written."""
    with atomic_directory(folder / "out") as outer:
        with atomic_directory(outer, overwrite=True) as inner:
            (inner / "a").write_text("a")
        assert names_in(folder) == [outer.name]
        drafts._remove_abandoned(folder / "out")
    assert (folder / "out" / "a").read_text() == "a"
