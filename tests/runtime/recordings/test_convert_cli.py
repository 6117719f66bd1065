"""The verb convert: recordings of any kind in, one dataset out, and what was left out told."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("mcap", reason="needs the extra memorywam[record]")
pytest.importorskip("pyarrow", reason="needs the extra memorywam[lerobot]")
pytest.importorskip("av", reason="needs the extra memorywam[lerobot]")

import pyarrow.parquet as pq
from tests.fakes.recordings import events_of, mcap_bytes, write_folder, write_lerobot

from memorywam_runtime.cli import main
from memorywam_runtime.recording import open_recordings


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for name, frames in (("a.mcap", 2), ("b.mcap", 3)):
        (folder / name).write_bytes(mcap_bytes(events_of(frames)))
    return folder


def convert(*words):
    return main(["convert", *map(str, words)])


def refused(capsys, *words):
    assert convert(*words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    return said


@pytest.mark.parametrize("options", [[], ["--video"]])
def test_a_folder_becomes_a_dataset(tmp_path, recordings, capsys, options):
    out = tmp_path / "set"
    assert convert(recordings, "--out", out, "--json", tmp_path / "told.json", *options) == 0
    said = capsys.readouterr().out
    assert "2 episodes, 20 rows at 10 a second" in said
    assert "images of head, wrist as " + ("videos" if options else "PNG files") in said
    assert "5 rows have images of their own (column observed_step), 15 a joint state" in said
    told = json.loads((tmp_path / "told.json").read_text())["data"]
    assert (told["num_rows"], told["num_observed"], told["num_episodes"]) == (20, 5, 2)
    # Of every four steps the first has an observation, the second and fourth a state.
    assert told["num_measured"] == 15
    assert [one["num_rows"] for one in told["recordings"]] == [8, 12]
    assert [one["episode_index"] for one in told["recordings"]] == [0, 1]
    found = open_recordings(out)
    assert [one.header.max_steps for one in found] == [8, 12]
    assert [one.header.instruction for one in found] == ["press « the » button"] * 2


def test_what_is_wrong_with_a_recording_is_told(tmp_path, recordings, capsys):
    content = (recordings / "b.mcap").read_bytes()
    (recordings / "b.mcap").write_bytes(content[: len(content) // 2])
    (recordings / "aa.mcap").write_bytes(mcap_bytes([]))
    assert convert(recordings, "--out", tmp_path / "set", "--json", tmp_path / "told.json") == 0
    said = capsys.readouterr().out
    assert "DAMAGED: the file is cut off or damaged" in said
    assert "LEFT OUT: no action follows an observation" in said
    told = json.loads((tmp_path / "told.json").read_text())["data"]
    assert told["num_episodes"] == 2
    assert [one["episode_index"] for one in told["recordings"]] == [0, None, 1]
    assert "damaged" in told["recordings"][2]["damage"]


@pytest.mark.parametrize("write", [write_folder, write_lerobot])
def test_other_kinds(tmp_path, write):
    source, out = write(tmp_path / "source"), tmp_path / "set"
    assert convert(source, "--out", out) == 0
    before, after = open_recordings(source), open_recordings(out)
    assert [one.header.max_steps for one in after] == [one.header.max_steps for one in before]
    assert after[0].header.action_names == before[0].header.action_names


def test_several_places(tmp_path, recordings):
    out = tmp_path / "set"
    assert convert(recordings / "b.mcap", recordings / "a.mcap", "--out", out) == 0
    assert [one.header.max_steps for one in open_recordings(out)] == [12, 8]
    assert convert(recordings / "a.mcap", "--out", out, "--overwrite") == 0
    assert pq.read_table(out / "data/chunk-000/file-000.parquet").num_rows == 8


def test_what_it_wrote_among_the_recordings_is_not_read_again(recordings, capsys):
    out = recordings / "set"
    assert convert(recordings, "--out", out) == 0
    before = (out / "data/chunk-000/file-000.parquet").read_bytes()
    capsys.readouterr()
    said = refused(capsys, recordings, "--out", out, "--overwrite")
    assert f"found {out} as a recording and {out} to write to" in said
    assert (out / "data/chunk-000/file-000.parquet").read_bytes() == before


def test_twice_by_a_directory_or_a_link(tmp_path, recordings, capsys):
    out = tmp_path / "set"
    assert "a.mcap twice" in refused(capsys, recordings, recordings / "a.mcap", "--out", out)
    (recordings / "c.mcap").symlink_to("b.mcap")
    assert "c.mcap twice" in refused(capsys, recordings, "--out", out)
    source = write_lerobot(tmp_path / "source")
    assert convert(source, "--out", out) == 0
    assert "source twice" in refused(capsys, source, source, "--out", tmp_path / "other")


def test_a_shadow_and_several_robots_are_told(tmp_path, recordings, capsys):
    content = mcap_bytes(events_of(2), robot="shadow:sim:fake")
    (recordings / "c.mcap").write_bytes(content)
    assert convert(recordings, "--out", tmp_path / "set", "--json", tmp_path / "told.json") == 0
    said = capsys.readouterr().out
    assert said.count("SHADOW: actions are what the arms did") == 1
    assert "of several robots: 'shadow:sim:fake', 'sim:fake'" in said
    told = json.loads((tmp_path / "told.json").read_text())["data"]["recordings"]
    assert [one["robot"] for one in told] == ["sim:fake", "sim:fake", "shadow:sim:fake"]


def test_refused_in_one_line(tmp_path, recordings, capsys):
    out = tmp_path / "set"
    assert "no recording at" in refused(capsys, tmp_path / "none", "--out", out)
    assert "twice" in refused(capsys, recordings, f"{recordings}/.", "--out", out)
    (recordings / "x.mcap").write_bytes(b"nonsense")
    assert "cannot be read at all" in refused(capsys, recordings, "--out", out)
    (recordings / "x.mcap").unlink()
    assert not out.exists()
    assert "is a file" in refused(capsys, recordings, "--out", recordings / "a.mcap")
    assert convert(recordings, "--out", out) == 0
    capsys.readouterr()
    assert "--overwrite" in refused(capsys, recordings, "--out", out)
    said = refused(capsys, out, "--out", out, "--overwrite")
    assert "that nothing is read from" in said
    folder = write_folder(tmp_path / "folder")
    assert "as in" in refused(capsys, recordings, write_lerobot(tmp_path / "o"), folder,
                              "--out", tmp_path / "new")  # fmt: skip
    assert not (tmp_path / "new").exists()


def test_help_needs_no_packages():
    code = (
        "import sys, argparse; from memorywam_runtime.recordings.convert_cli import Convert;"
        "Convert().add_arguments(argparse.ArgumentParser());"
        "print({'numpy', 'pyarrow', 'av', 'torch', 'mcap'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_neither_torch_nor_onnx(tmp_path, recordings):
    code = (
        "import sys; from memorywam_runtime.recordings.convert_cli import Convert; import argparse;"
        "parser = argparse.ArgumentParser(); Convert().add_arguments(parser);"
        "Convert().run(parser.parse_args(sys.argv[1:]));"
        "print({'torch', 'onnx', 'pandas', 'lerobot'} & set(sys.modules))"
    )
    words = [str(recordings), "--out", str(tmp_path / "set")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
