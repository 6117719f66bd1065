"""Decision points are spread over memory fill and episodes, the first few as all of them."""

import itertools
from collections import Counter
from types import SimpleNamespace

import msgspec
import pytest

from memorywam_calibration.episodes.samples import chosen_samples, fill_cells
from memorywam_calibration.episodes.survey import Survey
from memorywam_export.checkpoints.presets import contract_from_preset

CONTRACT = contract_from_preset("robotwin-384x320")


def surveys(num_episodes=12, num_frames=40, texts=("a", "b")):
    return [
        Survey(
            episode=SimpleNamespace(name=f"episode-{number}"),  # type: ignore[arg-type]
            instruction=texts[number % len(texts)],
            num_frames=num_frames,
            gripper_frames=frozenset({20, 21}),
        )
        for number in range(num_episodes)
    ]


def cell_counts(samples, cells):
    return Counter(
        cell.name for one in samples for cell in cells if cell.first <= one.frame + 1 <= cell.last
    )


def test_the_cells_of_the_real_model():
    cells = {cell.name: (cell.first, cell.last) for cell in fill_cells(CONTRACT, None)}
    assert cells == {
        "1": (1, 1), "2": (2, 2), "filling": (3, 6), "first eviction": (7, 7), "8-15": (8, 15),
        "16-30": (16, 30), "31-60": (31, 60), "61-90": (61, 90), "91-100": (91, 100),
        "> 100": (101, 1 << 30),
    }  # fmt: skip


@pytest.mark.parametrize("preset", ["tiny", "robotwin-384x320", "demo", "fastwam"])
@pytest.mark.parametrize("max_frames", [1, 5, 20, 64, 256, None])
def test_cells_meet_and_end_where_memory_does(preset, max_frames):
    contract = contract_from_preset(preset)
    cells = fill_cells(contract, max_frames)
    assert cells[0].first == 1
    for before, after in itertools.pairwise(cells):
        assert after.first == before.last + 1
    if contract.conventions.vae_history == "single_frame":
        assert [cell.name for cell in cells] == ["1"]
    else:
        assert cells[-1].last == (max_frames or 1 << 30)


def test_a_wide_window_leaves_out_the_cells_that_it_swallows():
    memory = msgspec.structs.replace(CONTRACT.memory, num_recent=20)
    cells = fill_cells(msgspec.structs.replace(CONTRACT, memory=memory), 64)
    assert [cell.name for cell in cells] == [
        "1", "2", "filling", "first eviction", "16-30", "31-60", "61-90"
    ]  # fmt: skip


def test_all_are_spread():
    cells = fill_cells(CONTRACT, 64)
    samples = chosen_samples(surveys(), cells, 64)
    assert len(set(samples)) == 64
    counts = cell_counts(samples, cells)
    assert set(counts) == {"1", "2", "filling", "first eviction", "8-15", "16-30", "31-60"}
    assert max(counts.values()) - min(counts.values()) <= 1
    episodes = Counter(one.episode for one in samples)
    assert len(episodes) == 12
    assert max(episodes.values()) - min(episodes.values()) <= 1
    assert len({one.seed for one in samples}) == 64


def test_the_first_eight_are_spread_as_all_are():
    cells = fill_cells(CONTRACT, 64)
    samples = chosen_samples(surveys(), cells, 64)
    assert len(cell_counts(samples[:8], cells)) == 7
    assert len({one.episode for one in samples[:8]}) == 8


def test_fewer_are_the_first_of_more():
    cells = fill_cells(CONTRACT, 64)
    assert chosen_samples(surveys(), cells, 16) == chosen_samples(surveys(), cells, 64)[:16]


def test_the_choice_hangs_on_seed_and_not_on_order():
    cells = fill_cells(CONTRACT, 64)
    samples = chosen_samples(surveys(), cells, 32)
    assert chosen_samples(surveys()[::-1], cells, 32) == samples
    assert chosen_samples(surveys(), cells, 32, seed=1) != samples


def test_no_more_than_there_are_and_none_beyond_memory():
    cells = fill_cells(CONTRACT, 10)
    samples = chosen_samples(surveys(2), cells, 64)
    assert sorted((one.episode, one.frame) for one in samples) == [
        (f"episode-{number}", frame) for number in range(2) for frame in range(10)
    ]
    assert chosen_samples([], cells, 8) == []
