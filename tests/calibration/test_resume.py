"""An interrupted calibration goes on where it was, to the same bytes."""

import dataclasses
import os
import signal

import pytest
from tests.fakes.programs import ended, shards_of, started, until

from memorywam_calibration.calibrate import Options, calibrated
from memorywam_runtime.errors import InputError
from memorywam_runtime.scale_table import ScaleTable, scale_table_to_json

OPTIONS = Options(num_samples=16)
COUNT = ("--samples", "16")


def as_bytes(table: ScaleTable | None) -> bytes:
    assert table is not None
    return scale_table_to_json(table)


@pytest.fixture
def whole(calibration):
    """The table of a run that nobody interrupts and that keeps nothing."""
    return as_bytes(calibration.table)


@pytest.fixture(scope="module")
def kept(tiny_bundle, recordings, tmp_path_factory):
    """The shards of a whole run. Read only."""
    folder = tmp_path_factory.mktemp("kept") / "shards"
    calibrated(tiny_bundle, recordings, dataclasses.replace(OPTIONS, shards=folder))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def resumed(tiny_bundle, recordings, tmp_path):
    """Go on from some shards."""

    def go_on(shards, **how):
        folder = tmp_path / "shards"
        folder.mkdir(exist_ok=True)
        for name, content in shards.items():
            (folder / name).write_bytes(content)
        options = dataclasses.replace(OPTIONS, shards=folder, is_resuming=True, **how)
        return calibrated(tiny_bundle, recordings, options)

    return go_on


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.proof)]
)
def test_a_killed_run_goes_on(how, whole, kept, tiny_bundle, recordings, tmp_path):
    out = tmp_path / "table.json"
    words = ("calibrate", tiny_bundle, "--recordings", recordings, "--out", out, *COUNT)
    process = started(*words)
    until(process, lambda: shards_of(out))
    os.killpg(process.pid, how)
    status, _ = ended(process)
    assert status == (130 if how is signal.SIGINT else -how)
    assert not out.exists()
    assert 0 < len(shards_of(out)) < len(kept)

    status, said = ended(started(*words))
    assert status == 2
    assert "go on from there with --resume, or remove the folder" in said
    status, said = ended(started(*words, "--resume"))
    assert status == 0, said
    assert "episodes were replayed before: episode-" in said
    assert out.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir()] == [out.name]


def test_any_shards_give_the_same_table(whole, kept, resumed):
    some = dict(sorted(kept.items())[::2])
    found = resumed(some)
    assert as_bytes(found.table) == whole
    assert len(found.resumed) == len(some)
    again = resumed({})
    assert as_bytes(again.table) == whole
    assert len(again.resumed) == len(kept)
    assert not again.redone


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:-9] + bytes([content[-9] ^ 4]) + content[-8:],
    ],
    ids=["cut off", "empty", "a bit flipped"],
)
def test_a_damaged_shard_is_told_and_redone(damage, whole, kept, resumed):
    name = min(kept)
    found = resumed({**kept, name: damage(kept[name])})
    assert as_bytes(found.table) == whole
    assert len(found.resumed) == len(kept) - 1
    ((episode, why),) = found.redone.items()
    assert episode not in found.resumed
    assert "its hash is not that of its content: it is damaged" in why


@pytest.mark.proof
def test_shards_of_other_choices_are_told_and_redone(whole, kept, resumed):
    found = resumed(kept, num_threads=2)
    assert not found.resumed
    assert len(found.redone) == len(kept)
    assert all("made with another num_threads" in why for why in found.redone.values())
    assert found.table is not None
    assert found.table.provenance.num_threads == 2
    assert as_bytes(resumed(kept).table) == whole


def test_a_shard_under_another_episodes_name_is_redone(whole, kept, resumed):
    first, second, *_ = sorted(kept)
    found = resumed({**kept, first: kept[second]})
    assert as_bytes(found.table) == whole
    (why,) = found.redone.values()
    assert "made with another episode, " in why


def test_left_over_shards_are_refused_without_resume(tiny_bundle, recordings, tmp_path):
    (tmp_path / "shards").mkdir()
    options = dataclasses.replace(OPTIONS, shards=tmp_path / "shards")
    with pytest.raises(InputError, match="calibration that was interrupted; expected none"):
        calibrated(tiny_bundle, recordings, options)
