"""What a later release has written: refused in one line that says so, by every verb."""

import json
import shutil
from pathlib import Path

import pytest
from tests.end_to_end.attack.test_rough_streams import TAILS
from tests.fakes.bundles import copy_of, edit_manifest

import memorywam_robot
from memorywam_runtime import cli

CHECKPOINT = Path(memorywam_robot.__file__).parent / "checkpoint"
READERS = [verb for verb in TAILS if verb != "calibrate"]


@pytest.fixture
def newer(tiny_bundle, tmp_path):
    """A bundle whose manifest has another number, and a field that nobody knows yet."""
    bundle = copy_of(tiny_bundle, tmp_path)
    edit_manifest(bundle, lambda found: found.update(schema_version=2, later={"a": 1}))
    return bundle


def refused(capsys, *words):
    """Return the one line that a verb says."""
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    return said.err


@pytest.mark.parametrize("verb", READERS)
def test_a_bundle(newer, verb, capsys):
    before = {path: path.read_bytes() for path in newer.rglob("*") if path.is_file()}
    said = refused(capsys, verb, newer, *TAILS[verb])
    assert "found schema version 2; this release reads 1" in said
    assert {path: path.read_bytes() for path in newer.rglob("*") if path.is_file()} == before


def test_doctor_counts_it_as_a_finding(newer, capsys):
    assert cli.main(["doctor", str(newer)]) == 1
    assert "found schema version 2; this release reads 1" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["replay", "calibrate"])
def test_a_recording(tiny_bundle, tmp_path, verb, capsys):
    from tests.end_to_end.attack.test_hostile_recordings import mcap_of

    start = json.dumps({"schema_version": 2, "later": 1}).encode()
    recording = tmp_path / "one.mcap"
    recording.write_bytes(mcap_of([("/episode/start", start)]))
    words = {
        "replay": ("replay", recording, "--bundle", tiny_bundle),
        "calibrate": ("calibrate", tiny_bundle, "--recordings", recording,
                      "--out", tmp_path / "table.json"),
    }  # fmt: skip
    assert "schema version 2" in refused(capsys, *words[verb])
    assert [path.name for path in tmp_path.iterdir()] == ["one.mcap"]


def test_a_checkpoint(tmp_path, capsys):
    checkpoint = shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")
    contract = json.loads((checkpoint / "contract.json").read_bytes())
    (checkpoint / "contract.json").write_text(json.dumps(contract | {"later": 1}))
    said = refused(capsys, "export", checkpoint, "--out", tmp_path / "bundle")
    assert "contract.json" in said
    assert "later" in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
