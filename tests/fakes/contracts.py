"""Small contracts for property tests: every size and convention that memory hangs on is drawn."""

import msgspec
from hypothesis import strategies as st

from memorywam_export.checkpoints.presets import contract_from_preset
from memorywam_runtime.contract import InferenceContract, MemorySizes
from memorywam_runtime.memory import Visible

__all__ = ["small_contracts", "visibles"]

visibles = st.builds(Visible, anchors=st.booleans(), window=st.booleans(), gists=st.booleans())


@st.composite
def small_contracts(
    draw, *, least_recent: int = 1, most_gists: int = 4, action_history: bool = True
) -> InferenceContract:
    """One row and two columns of tokens, 3 actions: bias vectors stay readable in a failure.

    Args:
        draw: By hypothesis.
        least_recent: Frames of the window.
        most_gists: Of a frame.
        action_history: Whether it may be kept.
    """
    base = contract_from_preset("tiny")
    conventions = msgspec.structs.replace(
        base.conventions,
        recent_includes_current=draw(st.booleans()),
        visual_sees_own_gist=draw(st.booleans()),
        action_history=draw(st.booleans()) if action_history else False,
    )
    sizes = MemorySizes(
        num_anchors=draw(st.integers(0, 3)),
        num_recent=draw(st.integers(least_recent, 5)),
        num_gists=draw(st.integers(0, most_gists)),
    )
    views = msgspec.structs.replace(
        base.observations, cameras=("head",), mosaic="single", height=16, width=32
    )
    actions = msgspec.structs.replace(base.actions, horizon=3)
    return msgspec.structs.replace(
        base, memory=sizes, conventions=conventions, observations=views, actions=actions
    )
