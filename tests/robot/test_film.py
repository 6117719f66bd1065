"""The film shows every second step, says what matters, and is written whole."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.film import FORMATS, LAST_PICTURE_MS, PICTURE_MS, Film, caption
from memorywam_robot.loop import run_episode
from memorywam_robot.sim.tasks import script_from_seed
from memorywam_runtime.errors import InputError


@pytest.fixture(scope="module")
def filmed(robots):
    """A film of an episode in which the arms wait, its length, and the film as a file."""
    from tests.robot.conftest import ScriptedPolicy

    robot = robots("glimpse")
    policy = ScriptedPolicy(lambda _frame, _state: np.repeat(robot.world.home[None], 16, axis=0))
    film = Film(robot.world, contract_from_preset("demo"), seed=1)
    results = [run_episode(policy, robot, seed=seed, subscribers=(film,)) for seed in (1, 2)]
    return film, results[0]


@pytest.mark.parametrize("ending", FORMATS)
def test_one_picture_every_second_step_of_its_seed_alone(filmed, tmp_path, ending):
    film, result = filmed
    expected = 1 + result.num_steps // 2
    path = tmp_path / f"film{ending}"
    film.write(path)
    assert path.stat().st_size < 3_000_000
    with Image.open(path) as picture:
        assert picture.format == FORMATS[ending]
        num_pictures = sum(1 for _ in ImageSequence.Iterator(picture))
        assert num_pictures == expected
        durations_ms = []
        for index in range(expected):
            picture.seek(index)
            picture.load()
            durations_ms.append(picture.info["duration"])
    assert durations_ms == [PICTURE_MS] * (expected - 1) + [LAST_PICTURE_MS]


def test_the_kept_strip_shows_the_hybrid_memory(filmed, robots):
    film, _ = filmed
    contract = contract_from_preset("demo")
    kept = [film._keeping(frame, 9) for frame in range(11)]
    full, gist, unseen = kept[0], kept[2], kept[10]
    assert len({full, gist, unseen}) == 3
    anchors, recent = contract.memory.num_anchors, contract.memory.num_recent
    assert kept == [full] * anchors + [gist] * (10 - anchors - recent) + [full] * recent + [unseen]


def test_captions():
    recall = script_from_seed("recall", 0)
    assert caption(recall, 0) == "frame 0: the lamp is lit: remember it"
    assert caption(recall, 2) == "frame 2: dark since frame 2"
    assert caption(recall, 5) == "frame 5: dark since frame 2"
    go = recall.go_frame
    assert caption(recall, go) == f"frame {go}: go! the lamp was {go - 1} frames ago"
    count = script_from_seed("count", 0)
    assert caption(count, 0) == "frame 0: nothing shown yet"
    for index, frame in enumerate(count.cue_frames):
        assert caption(count, frame) == f"frame {frame}: blink {index + 1}"


def test_refusals(robots, tmp_path):
    film = Film(robots("glimpse").world, contract_from_preset("demo"), seed=0)
    with pytest.raises(InputError, match="nothing was filmed"):
        film.write(tmp_path / "film.gif")
    assert not list(tmp_path.iterdir())


def test_the_picture_is_no_flat_colour(filmed, tmp_path):
    film, _ = filmed
    path = tmp_path / "film.webp"
    film.write(path)
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (444, 628, 3)
    assert pixels[:360, :480].std() > 20
