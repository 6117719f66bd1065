"""The verb run: what it tells, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image, ImageSequence

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_robot.robot import ROBOTS, robot_from_argument
from memorywam_robot.runs import visible_from_names
from memorywam_runtime.cli import main
from memorywam_runtime.errors import InputError
from memorywam_runtime.opening import Opening

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")


@pytest.fixture
def run(tiny_bundle, tmp_path, capsys):
    """Call the verb on the tiny bundle; return status, JSON if any, and what was said."""

    def call(*words, robot="sim:recall", instruction="random"):
        path = tmp_path / "result.json"
        path.unlink(missing_ok=True)
        text = ("--instruction", instruction) if instruction else ()
        status = main(
            ["run", str(tiny_bundle), "--robot", robot, "--threads", "1", *text, *words,
             "--json", str(path)]
        )  # fmt: skip
        document = json.loads(path.read_bytes()) if path.exists() else None
        said = capsys.readouterr()
        return status, document, said.out + said.err

    return call


def test_episodes(run):
    status, document, said = run("--episodes", "2", "--seed", "5")
    assert status == 0
    data = document["data"]
    assert [episode["seed"] for episode in data["episodes"]] == [5, 6]
    assert data["success"] == np.mean([episode["success"] for episode in data["episodes"]])
    for episode in data["episodes"]:
        assert episode["num_steps"] == 16 * episode["num_frames"]
        assert episode["num_dropped_gists"] == 0
        assert len(episode["act_ms"]) == len(episode["remember_ms"]) == episode["num_frames"]
    assert set(data["stages_ms"]) >= {"prepare", "vae_first", "vae_image", "cache_update", "chunk"}
    assert data["backend"] == "ort"
    assert "of 2 succeeded" in said


def test_denoising_steps_are_chosen_recorded_and_replayed(run, replay, tmp_path):
    status, document, _ = run("--steps", "2", "--record", str(tmp_path / "made"))
    assert status == 0
    assert document["data"]["num_denoising_steps"] == 2  # tiny's contract says 4
    (recording,) = (tmp_path / "made").iterdir()
    status, data, said = replay(recording, "--assert-equal", "--threads", "1")
    assert status == 0, said
    assert data["provenance"]["num_denoising_steps"] == 2


def test_the_same_seed_gives_the_same_episode(run):
    remarks = [run("--seed", "3")[1]["data"]["episodes"][0]["remark"] for _ in range(2)]
    assert remarks[0] == remarks[1]


def test_a_dry_run_moves_nothing(run, monkeypatch):
    from memorywam_robot.sim.world import World

    monkeypatch.setattr(World, "step", lambda *_: pytest.fail("moved"))
    status, document, said = run("--dry-run")
    assert status == 0
    assert document["data"]["dry_run"]["instruction"] == "random"
    assert document["data"]["dry_run"]["num_frames"] > 8
    assert "no command was sent" in said


def test_a_film(run, tmp_path):
    film = tmp_path / "first.webp"
    status, document, _ = run("--episodes", "2", "--film", str(film))
    assert status == 0
    with Image.open(film) as picture:
        # One at the start, one every second step of the first episode; each differs.
        num_pictures = sum(1 for _ in ImageSequence.Iterator(picture))
        assert num_pictures == 1 + document["data"]["episodes"][0]["num_steps"] // 2


@pytest.mark.parametrize(
    ("words", "options", "expected"),
    [
        ((), {"robot": "sim:dance"}, "expected one of sim:recall, sim:glimpse, sim:count"),
        ((), {"robot": "recall"}, "unknown robot 'recall'"),
        ((), {"instruction": "dance"}, "it holds 'random'"),
        ((), {"instruction": None}, "does not hold the instruction 'press the button"),
        (("--hide", "gists,walls"), {}, "cannot hide 'walls'; expected any of anchors"),
        (("--episodes", "0"), {}, "expected at least 1"),
        (("--steps", "0"), {}, "found --steps 0; expected 1 to 10000 denoising steps"),
        (("--seed", "-1"), {}, "expected an integer of at least 0"),
        (("--backend", "abacus"), {}, "unknown backend 'abacus'; expected one of ort"),
        (("--film", "film.mp4"), {}, "end its name in .webp or .gif"),
        (("--film", "nowhere/film.gif"), {}, "expected a file in a directory that exists"),
    ],
)
def test_refusals(run, words, options, expected):
    status, document, said = run(*words, **options)
    assert status == 2
    assert document is None
    assert expected in said
    assert "Traceback" not in said


def test_no_bundle(tmp_path, capsys):
    assert main(["run", str(tmp_path), "--robot", "sim:recall"]) == 2
    assert "no bundle at" in capsys.readouterr().err


def test_an_episode_that_memory_cannot_hold(tiny_bundle, robots):
    from memorywam_robot.runs import policy_from_bundle, rehearse
    from memorywam_runtime.errors import CapacityError

    policy = policy_from_bundle(tiny_bundle, Opening(num_threads=1))
    robot = robots("recall")
    robot_start = robot.start

    def long_start(seed):
        from memorywam_robot.robot import Job

        return Job(instruction=robot_start(seed).instruction, num_steps=16 * 400)

    robot.start = long_start
    try:
        with pytest.raises(CapacityError, match="needs 401 frames; the bundle holds 256"):
            rehearse(policy, robot, seed=0, instruction="random")
    finally:
        del robot.start


@pytest.mark.parametrize(
    ("hidden", "anchors", "window", "gists"),
    [("", True, True, True), ("gists", True, True, False), ("window,anchors", False, False, True)],
)
def test_hiding_parts_of_memory(hidden, anchors, window, gists):
    visible = visible_from_names(hidden)
    assert (visible.anchors, visible.window, visible.gists) == (anchors, window, gists)


def test_every_robot_that_is_listed_opens():
    for argument in ROBOTS:
        robot = robot_from_argument(argument, contract_from_preset("demo"))
        try:
            job = robot.start(0)
            assert job.instruction
            assert job.num_steps > 0
            assert set(robot.cameras.images()) == {"head", "left_wrist", "right_wrist"}
            assert robot.arm.state().shape == (14,)
            with pytest.raises(InputError):
                robot.arm.command(np.full(14, np.nan))
            robot.arm.hold()
        finally:
            robot.close()
            robot.close()
