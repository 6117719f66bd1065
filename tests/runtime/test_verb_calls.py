"""Verbs run in processes of their own; what they said comes back."""

import json

import pytest

from memorywam_runtime.errors import MemorywamError
from memorywam_runtime.verb_calls import VerbCalls


def test_a_verb_leaves_its_result_and_time(tmp_path):
    told: list[str] = []
    calls = VerbCalls(tmp_path / "results", told.append)
    document = calls.call("doctor", name="first")
    assert document["verb"] == "doctor"
    assert document == json.loads((tmp_path / "results" / "first.json").read_text())
    assert told[0] == "first ..."
    assert told[1].startswith("first: ")
    assert ("a check failed" in told[1]) is not document["ok"]


def test_a_verb_that_could_not_run_is_an_error_with_its_words(tmp_path):
    calls = VerbCalls(tmp_path, lambda line: None)
    with pytest.raises(MemorywamError, match=r"nowhere.*from: memorywam inspect nowhere"):
        calls.call("inspect", "nowhere")
    assert not (tmp_path / "inspect.json").exists()
