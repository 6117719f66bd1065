"""Rotary tables of frames and chunks: cosines and sines at their absolute positions."""

import numpy as np
from numpy.typing import NDArray

from memorywam_runtime.contract import InferenceContract

__all__ = ["Positions"]

Tables = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Cosines and sines [tokens, head_dim / 2], computed in float64."""


class Positions:
    """Angles of every token a contract can ask for; only the frame number changes between calls.

    A key keeps the position of its own frame for the whole episode: nothing is ever re-indexed.
    """

    def __init__(self, contract: InferenceContract) -> None:
        self._contract = contract
        self._frequencies = [
            contract.rope_theta ** -(np.arange(pairs, dtype=np.float64) / max(pairs, 1))
            for pairs in contract.rope_pairs
        ]
        rows, columns = contract.grid_shape
        grid = [(row, column) for row in range(rows) for column in range(columns)]
        marker = [contract.conventions.gist_hw_marker] * contract.memory.num_gists
        self._frame_hw = np.array([*grid, *marker], dtype=np.float64)  # [L + M, 2]

    def of_frame(self, frame: int) -> Tables:
        """Return tables [L + M, head_dim / 2] of a frame's visual and gist tokens."""
        time = np.full(len(self._frame_hw), float(self._time(frame)))
        return self._tables(time, self._frame_hw[:, 0], self._frame_hw[:, 1])

    def of_chunk(self, frame: int) -> Tables:
        """Return tables [horizon, head_dim / 2] of the actions that follow a frame."""
        contract = self._contract
        horizon, time = contract.actions.horizon, float(self._time(frame))
        step = np.arange(horizon, dtype=np.float64)
        if contract.conventions.action_position == "sequence":
            pairs = contract.head_dim // 2
            frequencies = contract.rope_theta ** -(np.arange(pairs, dtype=np.float64) / pairs)
            angles = step[:, None] * frequencies
            return np.cos(angles), np.sin(angles)
        if contract.conventions.action_position == "row_below":
            row = np.full(horizon, float(contract.grid_shape[0] + 1))
            return self._tables(np.full(horizon, time), row, step)
        outside = np.full(horizon, -1.0)
        return self._tables(time + (step + 1) / (horizon + 1), outside, outside)

    def _time(self, frame: int) -> int:
        """Return the temporal index: the frame's own, or 0 where observations stand alone."""
        return 0 if self._contract.conventions.vae_history == "single_frame" else frame

    def _tables(self, *axes: NDArray[np.float64]) -> Tables:
        """Return tables of tokens whose time, row and column are given, each [n]."""
        angles = np.concatenate(
            [axis[:, None] * f for axis, f in zip(axes, self._frequencies, strict=True)], axis=1
        )
        return np.cos(angles), np.sin(angles)
