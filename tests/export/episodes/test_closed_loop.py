"""Episodes are paired by seed, and differences are told with what they are worth."""

import json
from pathlib import Path

import numpy as np
import pytest

from memorywam_export.episodes.closed_loop import (
    ABLATIONS,
    LoopOptions,
    closed_loop,
    loop_data,
    loop_verdict,
)
from memorywam_export.episodes.closed_loop_page import closed_loop_figures
from memorywam_runtime.errors import InputError
from memorywam_runtime.report import json_from_data


class FakeRuns:
    """Answers `run` from a table of the seeds that fail."""

    def __init__(self, failing, *, executed=None):
        self.failing = failing
        self.executed = executed or {}
        self.calls = []

    def __call__(self, verb, *words, name=None):
        self.calls.append((verb, *words))
        assert words.count("--allow-unverified") == 1  # or what failed before could not be driven
        said = [word for word in words[1:] if word != "--allow-unverified"]
        options = dict(zip(said[::2], said[1::2], strict=True))
        key = (options["--backend"], options.get("--hide", ""))
        first, count = int(options["--seed"]), int(options["--episodes"])
        episodes = []
        for seed in range(first, first + count):
            failed = seed in self.failing.get(key, ())
            one = {"seed": seed, "success": not failed, "remark": "no" if failed else "yes"}
            if key[0] in self.executed:
                one["executed"] = self.executed[key[0]]
            episodes.append(one)
        return {"ok": True, "data": {"episodes": episodes[::-1]}}


def options(**changes):
    return LoopOptions(**{"tasks": ("recall",), "num_episodes": 50, "seed": 7, **changes})


def driven(failing, executed=None, **changes):
    runs = FakeRuns(failing, executed=executed)
    (loop,) = closed_loop(Path("bundle"), runs, options(**changes))
    return loop, runs


def test_pairs_are_made_by_seed_and_what_differs_is_listed():
    failing = {("eager", ""): {8, 9}, ("ort", ""): {9, 30}, ("ort", "gists"): set(range(7, 37))}
    loop, runs = driven(failing)
    assert loop.seeds == tuple(range(7, 57))
    assert (loop.reference.successes, loop.found.successes) == (48, 48)
    assert (loop.repairs, loop.regressions) == ((8,), (30,))
    assert loop.same_ending == 48
    assert (loop.pairs.both, loop.pairs.neither, loop.pairs.difference) == (47, 1, 0)
    assert list(loop.hidden) == list(ABLATIONS)
    assert loop.hidden["gists"].successes == 20
    assert loop.hidden_pairs["gists"].p_value < 1e-6
    assert loop.hidden_pairs["anchors"].only_second == 2
    assert loop.largest_action_difference is None
    assert runs.calls[0][:6] == ("run", "bundle", "--robot", "sim:recall", "--episodes", "50")
    assert len(runs.calls) == 2 + len(ABLATIONS)


@pytest.mark.parametrize(
    ("num_failing", "ok", "why"),
    [
        (0, True, "within 4 points"),
        (2, True, "within 4 points"),
        (4, True, "explained by the interval"),
        (9, False, "more than 4 points"),
    ],
)
def test_the_verdict_says_what_it_rests_on(num_failing, ok, why):
    loop, _ = driven({("ort", ""): set(range(7, 7 + num_failing))}, ablations=())
    found, told = loop_verdict(loop)
    assert found is ok
    assert why in told
    assert "50 pairs see a loss of" in told


def test_success_that_is_too_good_is_a_difference_too():
    loop, _ = driven({("eager", ""): set(range(7, 20))}, ablations=())
    assert len(loop.repairs) == 13
    assert loop_verdict(loop)[0] is False


def test_actions_are_compared_where_runs_tell_them():
    first = np.zeros((4, 2))
    second = np.zeros((3, 2))
    second[2, 1] = -0.25
    loop, _ = driven({}, {"eager": first.tolist(), "ort": second.tolist()}, ablations=())
    assert loop.largest_action_difference == 0.25


def test_figures_for_machines_and_for_people():
    loop, _ = driven({("eager", ""): {8}, ("ort", ""): {9}, ("ort", "gists"): set(range(7, 37))})
    data = json.loads(json_from_data(loop_data([loop])))
    assert data[0]["ok"] is True
    assert data[0]["regressions"] == [9]
    cards = "".join(closed_loop_figures(data))
    assert "without anchors and gists" in cards
    assert "40 % (28 to 54)" in cards
    assert "49/50" in cards
    assert "not told" in cards
    assert "Without a part" not in "".join(
        closed_loop_figures(loop_data([driven({}, ablations=())[0]]))
    )


def test_progress_is_told():
    told: list[str] = []
    closed_loop(Path("bundle"), FakeRuns({}), options(ablations=("gists",)), told.append)
    assert told == [
        "recall: 50 episodes by eager",
        "recall: 50 episodes by ort",
        "recall: 50 episodes by ort without gists",
    ]


@pytest.mark.parametrize("changes", [{"tasks": ()}, {"num_episodes": 0}, {"backend": "eager"}])
def test_what_compares_nothing_is_refused(changes):
    with pytest.raises(InputError, match="expected a task, an episode, and a backend other than"):
        driven({}, **changes)


def test_episodes_without_a_pair_or_a_verdict_are_refused():
    def short(verb, *words, name=None):
        return {"data": {"episodes": [{"seed": 7, "success": True, "remark": ""}]}}

    with pytest.raises(InputError, match="every pair needs both"):
        closed_loop(Path("bundle"), short, options(num_episodes=2))

    def unjudged(verb, *words, name=None):
        return {"data": {"episodes": [{"seed": 7, "success": None, "remark": ""}]}}

    with pytest.raises(InputError, match=r"no verdict on the episodes of seeds \[7\]"):
        closed_loop(Path("bundle"), unjudged, options(num_episodes=1))
