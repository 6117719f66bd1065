"""The options with which every verb opens a bundle."""

import argparse

import pytest

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.opening import Opening, backend_from_opening, opened, opening_from_args
from memorywam_runtime.opening_args import add_opening_args


def asked(*words):
    parser = argparse.ArgumentParser()
    add_opening_args(parser)
    return opening_from_args(parser.parse_args(words))


def test_the_defaults_are_onnxruntime_with_its_own_threads():
    assert asked() == Opening()
    assert asked("--backend", "eager", "--threads", "2") == Opening(backend="eager", num_threads=2)


def test_engines_are_asked_for_with_a_backend_that_has_them():
    words = ("--backend", "tensorrt-rtx", "--engine", "there", "--allow-unverified")
    wanted = Opening(backend="tensorrt-rtx", engines="there", allow_unverified=True)
    assert asked(*words) == wanted
    with pytest.raises(InputError, match="expected one of tensorrt, tensorrt-rtx"):
        asked("--engine", "there")
    assert asked("--allow-unverified").allow_unverified  # a bundle may have failed as well


def test_a_bundle_opens_as_asked(tiny_bundle):
    session = opened(tiny_bundle, asked("--backend", "eager", "--threads", "1"))
    assert session.backend.name == "eager"


def test_a_backend_that_is_not_there_is_told():
    with pytest.raises(MissingPartError, match="unknown backend 'none'"):
        backend_from_opening(asked("--backend", "none", "--threads", "3"))
