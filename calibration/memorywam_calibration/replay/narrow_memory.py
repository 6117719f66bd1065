"""Narrow memory: what a narrow window leaves of keys and values, in a session that is wide."""

import msgspec
import numpy as np

from memorywam_export.ladder.memory_form import form_of
from memorywam_export.parity.parity_graphs import kept_type
from memorywam_export.quantize.quantize_memory import window_from_table
from memorywam_export.recipes.recipes import recipe_from_name
from memorywam_runtime.manifest import Quantization
from memorywam_runtime.scale_table import ScaleTable
from memorywam_runtime.session import Session
from memorywam_runtime.tensors import DType, decoded, encoded

__all__ = ["NarrowMemory"]


class NarrowMemory:
    """Rounds what a session remembers as a quantized bundle would, when that would.

    Anchors, gists and the newest frame stay wide. Nothing but the window is rounded: what the
    folded scales do to the other products is of the order of float errors.
    """

    def __init__(self, session: Session, table: ScaleTable) -> None:
        """Prepare; nothing is rounded yet.

        Args:
            session: Of a bundle as exported.
            table: Scales of its memory.

        Raises:
            InputError: scales that do not fit the bundle.
        """
        recipe = recipe_from_name(table.recipe)
        memory = window_from_table(session.manifest, recipe, table).memory
        assert memory.dtype is not None
        quantization = Quantization(
            recipe=recipe.name, table=None, sites=(), wide={}, memory=memory
        )
        narrow = msgspec.structs.replace(session.manifest, quantization=quantization)
        self._session, self._form = session, form_of(narrow, table)
        self._dtype: DType = memory.dtype

    def age(self) -> None:
        """Round the newest frame, which the next one reads from the window; call it before that."""
        session, memory = self._session, self._session.memory
        newest = memory.num_frames - 1
        if newest < memory.rows.num_anchors:
            return
        first = memory.rows.slot(memory.slot_of(newest))
        own, dtype = slice(first, first + memory.rows.num_visual), kept_type(session)
        for name, array in session.calls.memory.items():
            held = session.backend.read(array)
            # As the graph has them: divided by what was folded, then by the tensor's one scale.
            step = self._form.factors[name] * self._form.window_scales[name]
            steps = decoded(held[:, :, own], dtype) / step
            rounded = decoded(encoded(steps, self._dtype), self._dtype).astype(np.float64) * step
            held[:, :, own] = encoded(rounded, dtype)
            session.backend.write(array, held)
