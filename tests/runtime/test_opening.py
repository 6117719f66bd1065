"""The options with which every verb opens a bundle."""

import argparse

import pytest

from memorywam_runtime.errors import InputError, MissingPartError
from memorywam_runtime.opening import (
    Opening,
    backend_from_opening,
    num_steps_from_args,
    opened,
    opening_from_args,
)
from memorywam_runtime.opening_args import add_opening_args, add_steps_arg


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


@pytest.mark.parametrize(
    ("words", "expected"), [((), None), (("--steps", "1"), 1), (("--steps", "10000"), 10_000)]
)
def test_denoising_steps_are_the_contracts_unless_asked_for(words, expected):
    parser = argparse.ArgumentParser()
    add_steps_arg(parser)
    assert num_steps_from_args(parser.parse_args(words)) == expected


@pytest.mark.parametrize("steps", ["0", "-1", "10001"])
def test_denoising_steps_that_nobody_takes_are_refused(steps):
    parser = argparse.ArgumentParser()
    add_steps_arg(parser)
    with pytest.raises(InputError, match=f"found --steps {steps}; expected 1 to 10000"):
        num_steps_from_args(parser.parse_args(["--steps", steps]))
