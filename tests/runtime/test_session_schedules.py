"""Any order of seeing, forgetting, remembering and restoring encodes what was remembered."""

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.bundles import differences
from tests.fakes.episodes import contract_with, identity, random_model

from memorywam_export.eager.eager import eager_session, model_from_tensors
from memorywam_export.graphs.rewrites import Rewrites

NUM_PICTURES = 8
FORMS = [
    ("continuous", ("early-frames",)),
    ("continuous", ()),
    ("windowed", ("early-frames",)),
    ("windowed", ()),
]


@functools.cache
def encoder_of(history: str, names: Any):
    """Return the reference and a session on its graphs in this form, in float64."""
    reference = random_model(contract_with("tiny", vae_history=history))
    rewritten = model_from_tensors(
        reference.contract, reference.state_dict(), torch.float64, Rewrites(names=names)
    )
    session = eager_session(rewritten, identity(reference.contract), max_frames=64)
    assert ("vae_image" in session.manifest.graphs) is bool(names)
    rng = np.random.default_rng(0)
    return reference, session, rng.uniform(-1, 1, (NUM_PICTURES, 1, 3, 1, 48, 32))


def wanted_latent(reference, images):
    """Encode the images of an episode that were remembered, whole, from its first one on."""
    if reference.contract.conventions.vae_history == "windowed":
        images = images[-5:]
    with torch.no_grad():
        latents = reference.vae.encode(torch.from_numpy(np.concatenate(images, axis=2)))
    return latents[:, :, -1:].numpy()


# "drop" sees images and forgets them: drawn in two, few schedules of 25 would do it at all.
NAMES = ("see", "drop", "drop", "remember", "remember", "forget", "snapshot", "restore", "reset")
OPERATIONS = st.tuples(st.sampled_from(NAMES), st.integers(1, 4), st.integers(0, NUM_PICTURES - 1))


class Schedule:
    """A session, and the images that it must have remembered."""

    def __init__(self, history, names):
        self.reference, self.session, self.pictures = encoder_of(history, names)
        self.session.reset()
        self.episode: list[Any] = []
        self.seen: list[Any] = []
        self.saved: tuple[Any, list[Any]] | None = None

    def missing(self):
        return (4 if self.episode else 1) - len(self.seen)

    def picture(self, number, offset):
        return self.pictures[(number + offset) % NUM_PICTURES]

    def see(self, count, picture):
        for offset in range(min(count, self.missing())):
            self.session.see(self.picture(picture, offset))
            self.seen.append(self.picture(picture, offset))

    def remember(self, _count, picture):
        rest = [self.picture(picture, offset) for offset in range(self.missing())]
        self.session.remember(np.concatenate(rest, axis=2) if rest else None)
        self.episode += [*self.seen, *rest]
        self.seen = []
        latent = self.session.calls.tensor("cache_update", "latent")
        wanted = wanted_latent(self.reference, self.episode)
        assert np.abs(latent - wanted).max() <= 1e-12

    def drop(self, count, picture):
        self.see(count, picture)
        self.forget()

    def forget(self, *_):
        self.session.forget_seen()
        self.seen = []

    def reset(self, *_):
        self.session.reset()
        self.episode, self.seen = [], []

    def snapshot(self, *_):
        if not self.seen:
            self.saved = (self.session.snapshot(), list(self.episode))

    def restore(self, *_):
        if self.saved is not None:
            self.session.restore(self.saved[0])
            self.episode, self.seen = list(self.saved[1]), []
            assert differences(self.session.snapshot(), self.saved[0]) == []


@pytest.mark.parametrize(("history", "names"), FORMS)
@settings(max_examples=25, deadline=None)
@given(operations=st.lists(OPERATIONS, min_size=4, max_size=14))
def test_a_session_encodes_what_it_remembered_and_nothing_else(history, names, operations):
    schedule = Schedule(history, names)
    schedule.remember(0, 0)  # from here on there is something to damage
    for name, count, picture in operations:
        getattr(schedule, name)(count, picture)
    # What was dropped or left open must not show in the frames that follow.
    for picture in range(2):
        schedule.remember(0, picture)
