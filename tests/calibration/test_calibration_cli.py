"""The verb calibrate: exit status, table, JSON, and nothing written that must not be."""

import json

import pytest

from memorywam_calibration.calibration_cli import Calibrate
from memorywam_export.episodes.closed_loop import TASKS
from memorywam_robot.sim.tasks import TASKS as SIMULATED
from memorywam_runtime.cli import main
from memorywam_runtime.scale_table import scale_table_from_json


@pytest.fixture
def calibrate(monkeypatch):
    """Run the program, whose verb need not be installed."""
    monkeypatch.setattr("memorywam_runtime.cli._loaded_verb", lambda *_: Calibrate())
    return lambda *words: main(["calibrate", *(str(word) for word in words)])


def test_a_table_is_written_and_told(calibrate, tiny_bundle, recordings, tmp_path, capsys):
    out, told = tmp_path / "table.json", tmp_path / "told.json"
    words = (tiny_bundle, "--recordings", recordings, "--out", out, "--samples", "16")
    assert calibrate(*words, "--json", told) == 0
    table = scale_table_from_json(out.read_bytes())
    printed = capsys.readouterr().out
    assert table.smooth
    assert f"{len(table.smooth)} inputs are smoothed by channel" in printed
    assert "fill/first eviction" in printed
    assert "missing, allowed  episodes end at 13 frames" in printed
    assert "activations become int8" in printed
    assert "between denoising steps the largest value changes up to" in printed
    assert "for trying out: a release takes 32" in printed
    data = json.loads(told.read_text())
    assert data["ok"]
    assert data["data"]["num_entries"] == len(table.entries)
    assert len(data["data"]["samples"]) == 16
    assert {one["verdict"] for one in data["data"]["coverage"]} == {"covered", "missing, allowed"}
    assert data["data"]["plateau"][0]["num_samples"] == 16


def test_what_is_equalized_can_be_chosen(calibrate, tiny_bundle, recordings, tmp_path, capsys):
    out = tmp_path / "table.json"
    words = (tiny_bundle, "--recordings", recordings, "--out", out, "--samples", "16")
    assert calibrate(*words, "--no-smooth", "--per-step") == 0
    stepped = scale_table_from_json(out.read_bytes())
    printed = capsys.readouterr().out
    assert stepped.smooth == {}
    assert "smoothed" not in printed
    assert ("by step" in printed) == bool(stepped.steps)


def test_missing_cells_are_named_and_nothing_is_written(
    calibrate, tiny_bundle, recordings, tmp_path, capsys
):
    out = tmp_path / "table.json"
    words = (tiny_bundle, "--recordings", recordings, "--out", out)
    assert calibrate(*words, "--max-fill", "4", "--samples", "16") == 1
    assert not out.exists()
    printed = capsys.readouterr().out
    cells = ("fill/first eviction", "fill/8-15", "phase/end")
    assert f"missing: {', '.join(cells)}. Nothing was written." in printed
    allowed = "fill/first eviction,fill/8-15,phase/*"
    assert calibrate(*words, "--max-fill", "4", "--samples", "16", "--allow-missing", allowed) == 0
    assert "fill/8-15" in scale_table_from_json(out.read_bytes()).provenance.missing


def test_a_dry_run_tells_the_coverage(calibrate, tiny_bundle, recordings, tmp_path, capsys):
    out = tmp_path / "table.json"
    words = (tiny_bundle, "--recordings", recordings, "--out", out)
    assert calibrate(*words, "--dry-run") == 0
    assert not out.exists()
    assert "nothing was replayed or written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--samples", "3"), "expected at least 8"),
        (("--seed", "-1"), "found --seed -1"),
        (("--cameras", "head"), "found 'head' in --cameras"),
        (("--recipe", "fp4"), "found recipe 'fp4' to calibrate"),
        (("--allow-missing", "*"), "expected cells besides 'samples'"),
        (("--max-fill", "0"), "found a memory fill of 0"),
        (("--out", "/nowhere/table.json"), "cannot be written"),
        (("--out", "/"), "expected a new name in a directory"),
        (("--recipe", "int8-weight", "--resume"), "found --resume with --recipe int8-weight"),
        (("--recipe", "int4-weight", "--dry-run"), "found --dry-run with --recipe int4-weight"),
    ],
)
def test_what_cannot_be_is_refused(
    calibrate, tiny_bundle, recordings, tmp_path, capsys, words, complaint
):
    given = (tiny_bundle, "--recordings", recordings, "--out", tmp_path / "table.json", *words)
    assert calibrate(*given) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "table.json").exists()


@pytest.mark.parametrize("place", ["bundle", "bundle/sub", "bundle/table.json", ".", "recordings"])
def test_nothing_is_written_over_what_is_read(
    calibrate, tiny_bundle, recordings, tmp_path, capsys, place
):
    bundle, found = tmp_path / "bundle", tmp_path / "recordings"
    bundle.symlink_to(tiny_bundle)
    found.mkdir()
    for path in recordings.iterdir():
        (found / path.name).symlink_to(path)
    before = sorted(tiny_bundle.iterdir()), sorted(found.iterdir())
    words = (bundle, "--recordings", found, "--out", tmp_path / place, "--overwrite")
    assert calibrate(*words) == 2
    assert "expected another place: that is read until all is judged" in capsys.readouterr().err
    assert (sorted(tiny_bundle.iterdir()), sorted(found.iterdir())) == before


def test_a_task_that_there_is_not_is_refused_before_any_work(
    calibrate, tiny_bundle, recordings, tmp_path, capsys
):
    words = (tiny_bundle, "--recordings", recordings, "--out", tmp_path / "out")
    assert calibrate(*words, "--closed-loop", "recall,juggle") == 2
    assert "found 'juggle' in --closed-loop; expected some of recall" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_tasks_are_those_of_the_simulated_robot():
    assert sorted(TASKS) == sorted(SIMULATED)


def test_a_mixed_recipe_tells_its_coverage(calibrate, tiny_bundle, recordings, tmp_path, capsys):
    words = (tiny_bundle, "--recordings", recordings, "--out", tmp_path / "out")
    assert calibrate(*words, "--recipe", "mixed", "--dry-run") == 0
    assert "nothing was replayed or written" in capsys.readouterr().out


def test_what_was_replayed_is_kept_until_something_is_written(
    calibrate, tiny_bundle, recordings, tmp_path, monkeypatch, caplog
):
    def stopped(*_args, **_how):
        raise KeyboardInterrupt

    out = tmp_path / "table.json"
    words = (tiny_bundle, "--recordings", recordings, "--out", out, "--samples", "16")
    monkeypatch.setattr("memorywam_calibration.calibrate.fitted_table", stopped)
    assert calibrate(*words) == 130
    kept = sorted((tmp_path / "table.json.shards").iterdir())
    assert kept
    assert f"keeps {len(kept)} episodes; go on with --resume" in caplog.text
    assert calibrate(*words, "--resume", "--max-fill", "4") == 1
    assert sorted((tmp_path / "table.json.shards").iterdir()) == kept


def test_no_recordings_is_status_2(calibrate, tiny_bundle, tmp_path, capsys):
    words = (tiny_bundle, "--recordings", tmp_path, "--out", tmp_path / "table.json")
    assert calibrate(*words) == 2
    assert "no recording in" in capsys.readouterr().err
