"""Memory side: a session whose memory another may take over, whatever form each keeps it in."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from memorywam_export.ladder.memory_form import MemoryForm
from memorywam_export.parity.trace_report import Tensors
from memorywam_runtime.memory import MemoryState
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import decoded, encoded

__all__ = ["Kept", "Side"]

_OF_MEMORY = ("memory.", "window.")
_OF_IMAGES = ("vae_cache.", "last_image")
"""What a session keeps beside; the instruction's keys are made once an episode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """All that a session remembers."""

    state: MemoryState
    bucket: int
    turn: int
    memory: Tensors
    """`memory.LL.k` to [heads, rows, head_dim], in the layout and units of bundles as exported."""
    images: dict[str, NDArray[Any]]
    """What the encoder keeps, as numbers."""


@dataclass(frozen=True, slots=True)
class Side:
    """A session, and the form of its memory."""

    session: Session
    form: MemoryForm

    def kept(self) -> Kept:
        """Return what the session remembers now."""
        snapshot = self.session.snapshot()
        specs = {name: spec for name, (spec, _) in self._arrays(snapshot.bucket).items()}
        return Kept(
            state=snapshot.memory,
            bucket=snapshot.bucket,
            turn=snapshot.turn,
            memory=self.form.read(snapshot.arrays, specs, snapshot.memory),
            images={
                name: decoded(array, specs[name].dtype)
                for name, array in snapshot.arrays.items()
                if name.startswith(_OF_IMAGES)
            },
        )

    def take_over(self, kept: Kept) -> None:
        """Have the session remember what another does, rounded to its own types."""
        own = self.session.snapshot()
        specs = {name: spec for name, (spec, _) in self._arrays(kept.bucket).items()}
        arrays = {
            name: array for name, array in own.arrays.items() if not name.startswith(_OF_MEMORY)
        }
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is told
            arrays |= self.form.write(kept.memory, specs, kept.state)
            for name, values in kept.images.items():
                arrays[name] = encoded(values, specs[name].dtype)
        self.session.restore(
            msgspec.structs.replace(
                own, memory=kept.state, bucket=kept.bucket, turn=kept.turn, arrays=arrays
            )
        )

    def _arrays(self, bucket: int) -> dict[str, Any]:
        """Return spec and tensor of all that the session keeps, with a bucket's rows."""
        return self.session.state_arrays(bucket)
