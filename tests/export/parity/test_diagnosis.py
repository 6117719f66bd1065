"""What goes wrong first is named: by frame, then by stage, layer and token."""

import numpy as np
from tests.fakes.episodes import contract_with

from memorywam_export.parity.diagnosis import diagnosis
from memorywam_export.parity.trace_report import ByFrame

CONTRACT = contract_with()
TOKENS = CONTRACT.num_frame_tokens


def errors(**at):
    """Errors of four frames: `latents`, `actions`, or `memory_00_k`, to (frame, tokens)."""
    latents, actions = np.zeros(4), np.zeros(4)
    memory = {f"memory.{layer:02d}.{part}": np.zeros((4, TOKENS))
              for layer in range(2) for part in "kv"}  # fmt: skip
    for name, place in at.items():
        if name == "latents":
            latents[place] = 1
        elif name == "actions":
            actions[place] = 1
        else:
            frame, tokens = place
            memory[name.replace("_", ".")][frame, tokens] = 1
    return ByFrame(latents=latents, memory=memory, actions=actions)


def test_nothing_is_wrong_within_the_tolerance():
    assert diagnosis(errors(), CONTRACT, 0.5) is None
    assert diagnosis(errors(latents=1), CONTRACT, 2.0) is None


def test_the_earliest_frame_counts_then_the_order_of_computation():
    found = diagnosis(errors(actions=1, latents=2, memory_00_k=(2, [0])), CONTRACT, 0.5)
    assert found == "actions, from frame 1 on"
    found = diagnosis(errors(actions=2, latents=2, memory_00_k=(2, [0])), CONTRACT, 0.5)
    assert found == "latents, from frame 2 on"
    found = diagnosis(errors(actions=2, memory_01_k=(2, [0]), memory_00_v=(2, [0])), CONTRACT, 0.5)
    assert found == "values of layer 0, from frame 2 on (1 visual tokens)"


def test_tokens_are_told_by_kind():
    visual, gist = [0, 2], [TOKENS - 1]
    found = diagnosis(errors(memory_01_k=(3, visual + gist)), CONTRACT, 0.5)
    assert found == "keys of layer 1, from frame 3 on (2 visual and 1 gist tokens)"
    found = diagnosis(errors(memory_01_k=(3, gist)), CONTRACT, 0.5)
    assert found == "keys of layer 1, from frame 3 on (1 gist tokens)"
