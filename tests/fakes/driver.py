"""What drives sessions and policies through episodes, and sees that a refusal changes nothing."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fakes.bundles import differences, observations_at

from memorywam_runtime.errors import InputError, MemorywamError
from memorywam_runtime.policy import Policy
from memorywam_runtime.session import Session

__all__ = ["Driver", "live", "remember_at", "unchanged"]


class Driver:
    """Drives a session through the same episode, frame by frame."""

    def __init__(
        self, session: Session, text: Mapping[str, NDArray[np.floating]], seed: int = 0
    ) -> None:
        self.session = session
        self.seed = seed
        session.reset(text)

    def remember(self, frame: int) -> None:
        """Remember the frame's images."""
        rng = np.random.default_rng((self.seed, frame))
        count = 1 if frame == 0 else 4
        self.session.remember(rng.uniform(-1, 1, (1, 3, count, 48, 32)).astype(np.float32))

    def act(self, frame: int) -> NDArray[np.floating]:
        """Act in the frame's state, from its noise; return the chunk."""
        rng = np.random.default_rng((self.seed, frame, 1))
        self.session.set_state(rng.standard_normal(14))
        return self.session.denoise(rng.standard_normal((16, 14)))

    def frames(self, *span: int) -> NDArray[np.floating]:
        """Remember and act; return the chunks [frames, horizon, action_dim]."""
        chunks = []
        for frame in range(*span):
            self.remember(frame)
            chunks.append(self.act(frame))
        return np.stack(chunks)


def live(policy: Policy, num_frames: int, seed: int = 0) -> NDArray[np.floating]:
    """Remember and act for some frames; return the chunks."""
    chunks = []
    for _ in range(num_frames):
        group = observations_at(policy.contract, policy.expected_steps(), seed)
        policy.remember(group)
        chunks.append(policy.act(group[-1].state))
    return np.stack(chunks)


def remember_at(policy: Policy, *steps: int) -> Callable[[], int]:
    """Return a call that remembers observations of these steps."""
    return lambda: policy.remember(observations_at(policy.contract, steps))


def unchanged(
    target: Session | Policy,
    message: str,
    call: Callable[[], object],
    *,
    error: type[MemorywamError] = InputError,
) -> None:
    """Expect that a call is refused, and that its target is bit for bit what it was."""
    before = target.snapshot()
    with pytest.raises(error, match=message):
        call()
    assert differences(target.snapshot(), before) == []
