"""SessionSnapshot: everything that a session must get back to go on bit for bit."""

from typing import Any

import msgspec

from memorywam_runtime.memory import MemoryState

__all__ = ["SessionSnapshot"]


class SessionSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All of a session's state: counters, and every tensor by name."""

    contract_hash: str
    memory: MemoryState
    bucket: int
    turn: int
    has_state: bool
    arrays: dict[str, Any]
