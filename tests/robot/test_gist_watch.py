"""Gists that a full memory drops: told at the start, logged once outside the tick, counted."""

import json
import logging

import msgspec
import pytest

from memorywam_robot import runs
from memorywam_robot.gist_watch import GistWatch
from memorywam_runtime import opening
from memorywam_runtime.cli import main
from memorywam_runtime.policy import Policy
from memorywam_runtime.session import Session

pytest.importorskip("mujoco", reason="needs the extra memorywam[sim]")
pytest.importorskip("onnxruntime", reason="needs the extra memorywam[cpu]")

KEPT = 4
DROPPED = "dropped the oldest gist"


@pytest.fixture
def forgetful(monkeypatch):
    """The verbs' policy with a gist table of 4 frames that drops the oldest."""
    opened = opening.opened

    def small(*args, **options):
        session = opened(*args, **options)
        plan = msgspec.structs.replace(
            session.manifest.memory,
            gist_buckets=(KEPT,),
            max_frames=KEPT,
            on_full="drop-oldest-gist",
        )
        manifest = msgspec.structs.replace(session.manifest, memory=plan)
        return Session(manifest, session.backend, session.engines, root=session.root)

    monkeypatch.setattr(runs, "opened", small)


def run(bundle, path, *words):
    words = ("--robot", "sim:recall", "--instruction", "random", "--threads", "1", *words)
    assert main(["run", str(bundle), *words, "--json", str(path)]) == 0
    return json.loads(path.read_bytes())["data"]["episodes"]


def test_dropped_gists_are_told_logged_once_an_episode_and_counted(
    forgetful, tiny_bundle, tmp_path, caplog, capsys
):
    episodes = run(tiny_bundle, tmp_path / "result.json", "--episodes", "2")
    dropped = [one["num_frames"] - KEPT for one in episodes]
    assert [one["num_dropped_gists"] for one in episodes] == dropped
    assert min(dropped) > 1
    assert f"{sum(dropped)} gists dropped: memory was full" in capsys.readouterr().out
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    first = f"step 65: memory was full at 4 frames; frame 4 {DROPPED}"
    assert [first in line for line in said].count(True) == 2
    assert sum(DROPPED in line for line in said) == 2
    # What comes after the last step may be a frame; this loop leaves it out.
    assert any(f"the gists of 4: up to {dropped[0] + 1} of the oldest" in line for line in said)


def test_a_memory_with_room_drops_none(tiny_bundle, tmp_path, caplog, capsys):
    (episode,) = run(tiny_bundle, tmp_path / "result.json")
    assert episode["num_dropped_gists"] == 0
    assert "gist" not in caplog.text + capsys.readouterr().out


def test_nothing_is_logged_in_the_tick(forgetful, tiny_bundle, robots, monkeypatch, caplog):
    policy = runs.policy_from_bundle(tiny_bundle)
    logged = []

    def quiet(name):
        real = getattr(Policy, name)

        def call(self, *args, **options):
            before = len(caplog.records)
            found = real(self, *args, **options)
            logged.append(len(caplog.records) - before)
            return found

        monkeypatch.setattr(Policy, name, call)

    for name in ("see", "remember", "act"):
        quiet(name)
    watch = GistWatch(policy)
    runs.run_episodes(
        policy, robots("recall"), seeds=[0], instruction="random", subscribers=[watch]
    )
    assert watch.num_dropped[0] > 0
    assert DROPPED in caplog.text
    assert not any(logged)
