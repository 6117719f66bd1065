"""Folds: what multiplies one weight and divides another leaves the model as it was."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes import velocities
from tests.fakes.episodes import contract_with, random_episode, random_model
from tests.fakes.velocities import slot_velocities, weights_of

from memorywam_export.checkpoints.weights import Weight
from memorywam_export.eager.eager import model_from_tensors, rewritten_model
from memorywam_export.graphs.rewrites import NO_REWRITES, Rewrites
from memorywam_export.quantize.quantize_folds import Fold, folded
from memorywam_export.quantize.quantize_memory import memory_folds, rotary_pairs
from memorywam_runtime.errors import InputError

HALVES = Rewrites(names=("rope-halves",))
NUM_FRAMES = 7
"""Past the tiny contract's 2 anchors, and one more than its ring of 3 holds."""


def weight(tensor, name="w"):
    return Weight(name, tuple(tensor.shape), tensor.dtype, lambda: tensor)


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    axis=st.integers(0, 1),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_a_fold_multiplies_along_its_axis(shape, axis, dtype, seed):
    rng = np.random.default_rng(seed)
    wide = torch.from_numpy(rng.standard_normal(shape)).to(dtype)
    factors = rng.uniform(0.1, 10, shape[axis])
    fold = Fold(tensor="w", axis=axis, factors=tuple(factors.tolist()))
    other = Fold(tensor="other", axis=7, factors=(3.0,))
    found = folded(weight(wide), [other, fold])
    by_axis = factors[:, None] if axis == 0 else factors
    wanted = torch.from_numpy(wide.double().numpy() * by_axis).to(dtype)
    assert (found.name, found.shape, found.dtype) == ("w", shape, dtype)
    assert torch.equal(found.checked(), wanted)


def test_several_folds_are_rounded_once():
    wide = torch.tensor([1.0, 1.0 + 2.0**-7], dtype=torch.bfloat16)
    folds = [Fold(tensor="w", axis=0, factors=(f, f)) for f in (3.0, 1 / 3)]
    assert torch.equal(folded(weight(wide), folds).checked(), wide)


def test_a_weight_is_read_when_it_is_loaded():
    def load() -> torch.Tensor:
        raise AssertionError("read too early")

    fold = Fold(tensor="w", axis=0, factors=(2.0,))
    found = folded(Weight("w", (1,), torch.float32, load), [fold])
    with pytest.raises(AssertionError, match="read too early"):
        found.checked()


@pytest.mark.parametrize("factors", [(0.0,), (-1.0,), (float("nan"),), (float("inf"),)])
def test_factors_that_would_lose_the_weight_are_refused(factors):
    with pytest.raises(InputError, match="found a factor that is not finite and above 0"):
        Fold(tensor="w", axis=0, factors=factors)


@pytest.mark.parametrize(("axis", "count"), [(0, 3), (1, 2), (2, 1), (-1, 3)])
def test_folds_that_do_not_fit_are_refused(axis, count):
    fold = Fold(tensor="w", axis=axis, factors=(2.0,) * count)
    with pytest.raises(InputError, match=rf"'w' \[2, 3\]: found {count} factors along axis {axis}"):
        folded(weight(torch.ones(2, 3)), [fold])


def memory_factors(contract, rewrites, *, is_shared):
    """Return random factors of every layer's keys and values as folds."""
    rng = np.random.default_rng(3)
    pairs = rotary_pairs(contract, rewrites.names)
    folds: list[Fold] = []
    for layer in range(contract.num_layers):
        for part in "kv":
            factors = np.exp2(rng.uniform(-4, 4, contract.attention_width))
            if part == "k" and is_shared:
                factors[pairs[:, 1]] = factors[pairs[:, 0]]
            folds += memory_folds(layer, part, factors)
    return folds


def folded_model(model, contract, folds, rewrites):
    tensors = {one.name: folded(one, folds).checked() for one in weights_of(model)}
    return model_from_tensors(contract, tensors, torch.float64, rewrites)


@pytest.fixture
def largest_change(monkeypatch):
    """What folds change at most in the chunks of an episode, relative to the largest action."""

    def measure(conventions, rewrites, cache_write, *, is_shared):
        contract = contract_with("tiny", **conventions)
        model, episode = random_model(contract), random_episode(contract, NUM_FRAMES)
        folds = memory_factors(contract, rewrites, is_shared=is_shared)
        wanted, _ = slot_velocities(model, episode, cache_write, None, rewrites)
        if rewrites.names:  # folded behind the rewrite, as a bundle's weights are
            monkeypatch.setattr(
                velocities,
                "rewritten_model",
                lambda *args: folded_model(rewritten_model(*args), contract, folds, rewrites),
            )
        else:
            model = folded_model(model, contract, folds, rewrites)
        found, _ = slot_velocities(model, episode, cache_write, None, rewrites)
        return np.abs(found - wanted).max() / np.abs(wanted).max()

    return measure


@pytest.mark.parametrize("rewrites", [NO_REWRITES, HALVES], ids=["pairs", "halves"])
@pytest.mark.parametrize("cache_write", ["in_place", "copy"])
@pytest.mark.parametrize("keeps_actions", [False, True])
def test_scales_of_memory_fold_exactly(largest_change, rewrites, cache_write, keeps_actions):
    conventions = {"action_history": keeps_actions}
    assert largest_change(conventions, rewrites, cache_write, is_shared=True) <= 1e-12


@pytest.mark.parametrize("rewrites", [NO_REWRITES, HALVES], ids=["pairs", "halves"])
def test_a_rotary_pair_must_share_its_scale(largest_change, rewrites):
    assert largest_change({}, rewrites, "in_place", is_shared=False) > 1e-3
