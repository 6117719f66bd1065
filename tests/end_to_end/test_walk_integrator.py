"""An integrator's walk, from a bundle to a replayed episode, as robot/WALK.md has it."""

import pytest
from tests.fakes.page_commands import ROOT, lines, lines_not_printed, run_commands

from memorywam_runtime.cli import main

PAGE = (ROOT / "robot" / "WALK.md").read_text()


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("integrator")
    return folder, run_commands(PAGE, folder, doubtful=["memorywam doctor"])


def test_the_page_shows_what_is_printed(walked):
    assert not lines_not_printed(PAGE, walked[1])


def printed(walked, verb):
    (found,) = (text for line, text in walked[1].items() if line.split()[1] == verb)
    return found


def test_the_doctor_names_the_parts_of_this_walk(walked):
    told = printed(walked, "doctor")
    for part in ("pyrealsense2", "mujoco", "bundle", "memory plan", "ticks"):
        assert part in told


def test_the_dry_run_holds_the_arms(walked):
    (told,) = (text for line, text in walked[1].items() if "--dry-run" in line)
    well = ("camera head         ok", "arms                holding, powered")
    for line in (*well, "no command was sent"):
        assert line in told
        assert line in PAGE
    assert "rad at most" in told


def test_the_episode_is_recorded_and_told(walked):
    (told,) = (text for line, text in walked[1].items() if "--record" in line)
    (header,) = (line for line in lines(PAGE, "text") if line.startswith("seed"))
    assert header.split() == next(line.split() for line in told.splitlines() if "seed" in line)
    assert (walked[0] / "recordings" / "sim-recall-seed-0.mcap").is_file()
    assert "<svg" in (walked[0] / "run.html").read_text()


def test_the_replay_is_bit_equal(walked):
    (promised,) = (line for line in lines(PAGE, "text") if line.startswith("equal;"))
    assert promised in printed(walked, "replay")


@pytest.mark.parametrize("verb", ["doctor", "run", "replay"])
def test_the_options_shown_for_hardware_exist(verb, capsys):
    shown = {
        word
        for line in lines(PAGE, "console")
        if f"memorywam {verb} " in line
        for word in line.split()
        if word.startswith("--")
    }
    assert main([verb, "--help"]) == 0
    missing = shown - set(capsys.readouterr().out.replace(",", " ").split())
    assert shown
    assert not missing
