"""Files and directories: whole or not at all."""

import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from memorywam_runtime import files
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import (
    atomic_directory,
    atomic_write,
    read_file,
    refuse_unwritable,
    sha256_of,
)


class StopError(Exception):
    """What goes wrong in the middle."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where nothing but the result may be left."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def test_a_file_is_written_and_replaced(folder: Path) -> None:
    target = folder / "a.json"
    atomic_write(target, b"one")
    atomic_write(target, b"two")
    assert target.read_bytes() == b"two"
    assert list(folder.iterdir()) == [target]


def test_a_file_gets_the_ordinary_permissions(folder: Path) -> None:
    (folder / "plain").write_bytes(b"")
    atomic_write(folder / "a", b"")
    assert (folder / "a").stat().st_mode == (folder / "plain").stat().st_mode


def test_a_link_keeps_pointing_at_its_file(folder: Path) -> None:
    atomic_write(folder / "real", b"one")
    (folder / "link").symlink_to("real")
    atomic_write(folder / "link", b"two")
    assert (folder / "link").is_symlink()
    assert (folder / "real").read_bytes() == b"two"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = folder / "a"
    atomic_write(target, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(folder.iterdir()) == [target]


def test_a_file_needs_its_directory(folder: Path) -> None:
    with pytest.raises(InputError, match="is not a directory"):
        atomic_write(folder / "nowhere" / "a", b"")
    with pytest.raises(InputError, match="is a directory; expected a file"):
        atomic_write(folder, b"")


def test_what_cannot_be_written_is_refused_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_unwritable("--json", folder / "a")
    (folder / "link").symlink_to(folder / "nowhere" / "a")
    for path in (folder, folder / "nowhere" / "a", folder / "link"):
        with pytest.raises(InputError, match=r"found --json .* in a directory that exists"):
            refuse_unwritable("--json", path)
    # As of a folder that is read-only; root would write there all the same.
    monkeypatch.setattr(os, "access", lambda path, mode: path != folder.resolve())
    with pytest.raises(InputError, match=r"found --json .* that may be written: choose another"):
        refuse_unwritable("--json", folder / "a")
    with (
        pytest.raises(InputError, match="may not be written; expected permission"),
        atomic_directory(folder / "bundle"),
    ):
        pytest.fail("the work began")


def test_a_directory_appears_complete(folder: Path) -> None:
    target = folder / "bundle"
    with atomic_directory(target) as draft:
        (draft / "deep").mkdir()
        (draft / "deep" / "a").write_text("a")
        assert draft.parent == target.parent
        assert not target.exists()
    assert (target / "deep" / "a").read_text() == "a"
    assert list(folder.iterdir()) == [target]


def test_an_empty_directory_is_filled(folder: Path) -> None:
    target = folder / "bundle"
    target.mkdir()
    with atomic_directory(target) as draft:
        (draft / "a").write_text("a")
    assert (target / "a").read_text() == "a"


def test_after_an_error_nothing_is_left(folder: Path) -> None:
    with pytest.raises(StopError), atomic_directory(folder / "bundle") as draft:
        (draft / "a").write_text("a")
        raise StopError
    assert list(folder.iterdir()) == []


def test_a_full_directory_is_refused_before_any_work(folder: Path) -> None:
    target = folder / "bundle"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists and is not empty"), atomic_directory(target):
        pytest.fail("the work began")
    assert list(folder.iterdir()) == [target]


def test_a_directory_filled_meanwhile_is_not_overwritten(folder: Path) -> None:
    target = folder / "bundle"
    with pytest.raises(InputError, match="exists and is not empty"), atomic_directory(target):
        target.mkdir()
        (target / "theirs").write_text("theirs")
    assert [path.name for path in target.iterdir()] == ["theirs"]
    assert list(folder.iterdir()) == [target]


def test_overwriting_swaps_the_directory(folder: Path) -> None:
    target = folder / "bundle"
    target.mkdir()
    (target / "old").write_text("old")
    (target / "manifest.json").write_text('{"contract_hash": "", "files": ["old"]}')
    with atomic_directory(target, overwrite=True) as draft:
        (draft / "new").write_text("new")
        assert (target / "old").exists()
    assert [path.name for path in target.iterdir()] == ["new"]
    assert list(folder.iterdir()) == [target]


def test_a_failed_overwrite_keeps_the_old_directory(folder: Path) -> None:
    target = folder / "bundle"
    target.mkdir()
    (target / "old").write_text("old")
    (target / "manifest.json").write_text('{"contract_hash": "", "files": ["old"]}')
    with pytest.raises(StopError), atomic_directory(target, overwrite=True) as draft:
        (draft / "new").write_text("new")
        raise StopError
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "old"]
    assert list(folder.iterdir()) == [target]


def test_a_failed_swap_puts_the_old_directory_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = folder / "bundle"
    target.mkdir()
    (target / "old").write_text("old")
    (target / "manifest.json").write_text('{"contract_hash": "", "files": ["old"]}')
    rename = Path.rename

    def fail_into_place(self: Path, to: Path) -> Path:
        if (self / "new").exists():
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_into_place)
    with (
        pytest.raises(OSError, match="Input/output"),
        atomic_directory(target, overwrite=True) as draft,
    ):
        (draft / "new").write_text("new")
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "old"]
    assert list(folder.iterdir()) == [target]


def test_a_file_is_never_turned_into_a_directory(folder: Path) -> None:
    (folder / "a").write_text("a")
    with (
        pytest.raises(InputError, match="is a file; expected a directory"),
        atomic_directory(folder / "a", overwrite=True),
    ):
        pytest.fail("the work began")


def test_sha256_reads_more_than_one_block(folder: Path) -> None:
    content = bytes(range(256)) * (files._READ_BYTES // 256 + 1)
    (folder / "a").write_bytes(content)
    assert sha256_of(folder / "a") == hashlib.sha256(content).hexdigest()


def test_reading_a_small_file_takes_little_whatever_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"ten bytes.")
    tracemalloc.start()
    try:
        assert read_file(tmp_path / "small", 1 << 28) == b"ten bytes."
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not Path("/proc/self/limits").is_file(), reason="needs /proc")
def test_a_file_whose_system_tells_no_size_is_read_to_its_end() -> None:
    path = Path("/proc/self/limits")
    assert path.stat().st_size == 0
    content = read_file(path, 1 << 16)
    assert content == path.read_bytes()
    assert read_file(path, len(content)) == content
    with pytest.raises(InputError, match="expected at most"):
        read_file(path, len(content) - 1, InputError)
