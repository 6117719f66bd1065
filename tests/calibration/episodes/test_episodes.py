"""Episodes keep their part of the split when others join them, and must fit the bundle."""

import shutil
from collections import Counter

import msgspec
import numpy as np
import pytest
from tests.fakes.recordings import write_folder, write_lerobot

from memorywam_calibration.episodes.episodes import SPLITS, count_by_split, episodes_in, fraction_of
from memorywam_calibration.episodes.frames import frames_of
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import sha256_of


@pytest.fixture
def found_in(writer):
    def found(place, **how):
        return episodes_in(place, writer.contract, writer.manifest.contract_hash, **how)

    return found


def test_every_recording_is_an_episode_with_its_hash(recordings, found_in):
    found = found_in(recordings)
    files = sorted(recordings.iterdir())
    assert [one.name for one in found] == [file.stem for file in files]
    assert [one.sha256 for one in found] == [sha256_of(file) for file in files]
    counts = count_by_split(found)
    assert sum(counts.values()) == len(files)
    assert all(counts[split] for split in SPLITS)


def test_the_split_stays_when_episodes_are_added(recordings, found_in, tmp_path):
    files = sorted(recordings.iterdir())
    for file in files[::3]:
        shutil.copy(file, tmp_path)
    before = {one.name: one.split for one in found_in(tmp_path, seed=5)}
    after = {one.name: one.split for one in found_in(recordings, seed=5)}
    assert before.items() <= after.items()
    assert after != {one.name: one.split for one in found_in(recordings, seed=6)}


def test_shares_are_kept_on_average(recordings, found_in):
    fractions = [fraction_of(0, f"episode {number}") for number in range(2000)]
    assert sum(one < 0.6 for one in fractions) / 2000 == pytest.approx(0.6, abs=0.04)
    assert Counter(one.split for one in found_in(recordings, shares=(0.0, 0.0, 1.0))) == {
        "held_out": len(list(recordings.iterdir()))
    }
    for shares in [(0.5, 0.5), (0.9, 0.2, -0.1), (0.5, 0.2, 0.2)]:
        with pytest.raises(InputError, match="whose sum is 1"):
            found_in(recordings, shares=shares)


def test_the_same_episode_twice_is_refused(recordings, found_in, tmp_path):
    file = next(recordings.iterdir())
    shutil.copy(file, tmp_path / "a.mcap")
    shutil.copy(file, tmp_path / "b.mcap")
    with pytest.raises(InputError, match=r"a\.mcap and .*b\.mcap with the same bytes"):
        found_in(tmp_path)


def test_two_of_one_name_are_refused(writer, found_in, tmp_path):
    writer.write(tmp_path, "a", 2, seed=1)
    writer.write(tmp_path, "b", 2, seed=2).rename(tmp_path / "a.mcap.part")
    with pytest.raises(InputError, match="2 recordings named 'a'"):
        found_in(tmp_path)


def test_another_contract_is_refused(writer, found_in, tmp_path):
    writer.write(tmp_path, "other", 2, contract_hash="f" * 64)
    with pytest.raises(InputError, match=r"other\.mcap was recorded with contract ffffffffffff"):
        found_in(tmp_path)


def test_another_robot_is_refused(found_in, tmp_path):
    write_folder(tmp_path / "hand")
    with pytest.raises(InputError, match="states of 3 numbers and actions of 3; the contract"):
        found_in(tmp_path)


def test_no_recordings_is_refused(found_in, tmp_path):
    with pytest.raises(InputError, match="no recording in"):
        found_in(tmp_path)
    with pytest.raises(InputError, match="no recording at"):
        found_in(tmp_path / "nowhere")


def test_a_folder_is_hashed_whole(writer, tmp_path):
    root = write_folder(tmp_path / "hand")
    actions = msgspec.structs.replace(writer.contract.actions, state_dim=3, action_dim=3)
    actions = msgspec.structs.replace(actions, names=(), units=())
    contract = msgspec.structs.replace(writer.contract, actions=actions)
    (before,) = episodes_in(tmp_path, contract, "")
    (root / "note.txt").write_text("one more")
    (after,) = episodes_in(tmp_path, contract, "")
    assert before.name == after.name == "hand"
    assert before.sha256 != after.sha256


def test_episodes_of_a_data_set_are_told_apart(writer, found_in, tmp_path):
    pytest.importorskip("pyarrow", reason="needs the extra memorywam[lerobot]")
    pytest.importorskip("av", reason="needs the extra memorywam[lerobot]")
    contract = writer.contract
    write_lerobot(
        tmp_path / "set",
        lengths=(20, 36, 18),
        dim=contract.actions.state_dim,
        cameras=contract.observations.cameras,
        video=False,
        image_of=lambda camera, episode, step: np.full((24, 20, 3), 5 * step, np.uint8),
    )
    found = found_in(tmp_path / "set")
    assert [one.name for one in found] == ["set#000000", "set#000001", "set#000002"]
    assert len({one.sha256 for one in found}) == 1
    counts = [len(list(frames_of(one.recording, contract))) for one in found]
    assert counts == [2, 3, 2]
