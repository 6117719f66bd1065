"""openpi's policy in this process: what its clients send over the wire, answered without one."""

import time
from collections.abc import Mapping
from typing import Any

from memorywam_robot.adapters.dialects import PolicyService

__all__ = ["LocalPolicy"]


class LocalPolicy:
    """Stands where openpi's websocket client does; has the form of its `BasePolicy`.

    Takes the same dictionaries in every dialect and gives the same answers, so that a robot's
    program is the same with the policy beside it or far away. For one thread. Unlike that client's,
    `reset` reaches memory.
    """

    def __init__(self, service: PolicyService) -> None:
        """Begin as a new connection does."""
        self._service = service
        self.reset()

    def infer(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a message: of an observation, `actions` [horizon, action_dim].

        Raises:
            InputError: it does not fit, as a server would say.
            MemorywamError: the policy could not do it.
        """
        return self._conversation.answer(obs, time.monotonic_ns())

    def reset(self) -> None:
        """Begin another episode with the next message."""
        self._conversation = self._service.conversation()

    def get_server_metadata(self) -> dict[str, Any]:
        """Return what a client is told first."""
        return self._service.metadata()
