"""Faults that are planted to see them caught: a ladder that finds none of these proves nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from memorywam_export.parity.parity_graphs import Script
from memorywam_export.parity.trace_report import Array
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.session import Session

__all__ = ["FAULTS", "Fault", "faults_of"]

Break = AbstractContextManager[None]
_AT = 3
"""The frame that a fault of one frame is planted in: after the anchors, before an eviction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to be wrong, and what the ladder must say of it."""

    name: str
    says: str
    """A pattern that the diagnosis must match."""
    script: Callable[[Script, InferenceContract], Script] | None = None
    """Returns what is fed instead."""
    session: Callable[[Session], "Break"] | None = None
    """Breaks a session while the context is open."""
    needs: Callable[[InferenceContract], bool] = lambda contract: True
    """Is it a fault under this contract?"""


def faults_of(contract: InferenceContract) -> list[Fault]:
    """Return the faults that can be planted under a contract."""
    return [fault for fault in FAULTS if fault.needs(contract)]


def _remembers(contract: InferenceContract) -> bool:
    """Does memory hold more than the newest frame?"""
    return contract.conventions.vae_history != "single_frame"


def _has_gists(contract: InferenceContract) -> bool:
    """Does memory have a gist table?"""
    return contract.memory.num_gists > 0


def _has_mosaic(contract: InferenceContract) -> bool:
    """Are there several cameras in an image?"""
    return contract.observations.mosaic != "single"


def _images(change: Callable[[Array, InferenceContract], Array], first: int = 0) -> Any:  # noqa: ANN401 - a change of a script
    """Return a change of a script that changes the images from a frame on."""

    def changed(script: Script, contract: InferenceContract) -> Script:
        pixels = [
            change(images, contract) if frame >= first else images
            for frame, images in enumerate(script.pixels)
        ]
        return replace(script, pixels=[np.ascontiguousarray(images) for images in pixels])

    return changed


def _swap_cameras(images: Array, contract: InferenceContract) -> Array:
    """Exchange the left and the right wrist."""
    height = contract.observations.height // 3
    top = contract.observations.mosaic == "wrists_top_head_bottom"
    rows = slice(0, height) if top else slice(2 * height, None)
    found = images.copy()
    left, right = np.split(images[..., rows, :], 2, axis=-1)
    found[..., rows, :] = np.concatenate((right, left), axis=-1)
    return found


def _wrong_mosaic(images: Array, contract: InferenceContract) -> Array:
    """Put the wrists below the head, or above it."""
    height = contract.observations.height // 3
    top = contract.observations.mosaic == "wrists_top_head_bottom"
    return np.roll(images, -height if top else height, axis=-2)


def _replaced_frame(source: int) -> Any:  # noqa: ANN401 - a change of a script
    """Return a change that gives one frame the images of another."""

    def changed(script: Script, _: InferenceContract) -> Script:
        pixels = list(script.pixels)
        pixels[_AT] = pixels[source]
        return replace(script, pixels=pixels)

    return changed


def _dropped_frame(script: Script, _: InferenceContract) -> Script:
    """Leave a frame out: those after it come one too early."""
    pixels = [*script.pixels[:_AT], *script.pixels[_AT + 1 :], script.pixels[-1]]
    return replace(script, pixels=pixels)


def _stale_state(script: Script, _: InferenceContract) -> Script:
    """Act on the joint state of the frame before."""
    states = script.states.copy()
    states[_AT] = states[_AT - 1]
    return replace(script, states=states)


def _other_noise(script: Script, _: InferenceContract) -> Script:
    """Start one chunk from the noise of another seed."""
    noise = script.noise.copy()
    noise[_AT] = script.other_noise
    return replace(script, noise=noise)


@contextmanager
def _replaced(owner: object, method: str, other: Callable[..., Any]) -> Iterator[None]:
    """Give an object another method while the body runs."""
    setattr(owner, method, other)
    try:
        yield
    finally:
        delattr(owner, method)


def _shifted(method: str) -> Callable[[Session], Break]:
    """Return a break that gives positions one frame too late."""

    def broken(session: Session) -> Break:
        positions = session._positions  # noqa: SLF001 - to break it
        true = getattr(positions, method)
        return _replaced(positions, method, lambda frame: true(frame + (frame >= _AT)))

    return broken


def _after_frame(harm: Callable[[Session, int], None]) -> Callable[[Session], Break]:
    """Return a break that harms memory once one frame has been remembered."""

    def broken(session: Session) -> Break:
        true: Callable[..., int] = session.remember

        def remember(*arguments: object, **options: object) -> int:
            frame = true(*arguments, **options)
            if frame == _AT:
                harm(session, frame)
            return frame

        return _replaced(session, "remember", remember)

    return broken


def _changed_rows(
    session: Session, rows: slice, change: Callable[[Array], Array], only: str = ""
) -> None:
    """Change some rows of memory tensors whose name ends as given."""
    for name, tensor in session.calls.memory.items():
        if name.endswith(only):
            values = session.backend.read(tensor)
            values[:, :, rows] = change(values[:, :, rows])
            session.backend.write(tensor, values)


def _stale_slot(session: Session, frame: int) -> None:
    """Leave in a frame's slot what stood in the slot before it."""
    memory, rows = session.memory, session.memory.rows
    old = rows.slot(memory.slot_of(frame - 1))
    new = rows.slot(memory.slot_of(frame))
    session.calls.copy_rows(new, old, rows.num_visual)


def _lost_gist(session: Session, frame: int) -> None:
    """Leave a frame's place in the gist table empty."""
    rows, place = session.memory.rows, session.memory.rows.gist(session.memory.gist_place(frame))
    _changed_rows(session, slice(place, place + rows.num_gists), np.zeros_like)


def _old_gist(session: Session, frame: int) -> None:
    """Put the gist of the frame before into a frame's place."""
    memory, rows = session.memory, session.memory.rows
    place, before = (rows.gist(memory.gist_place(one)) for one in (frame, frame - 1))
    session.calls.copy_rows(place, before, rows.num_gists)


def _coarse(session: Session, frame: int) -> None:
    """Round the values of one layer to four bits behind the point."""
    rows = session.memory.rows
    slot = rows.slot(session.memory.slot_of(frame))
    _changed_rows(
        session, slice(slot, slot + rows.num_visual), lambda x: np.round(x * 8) / 8, "01.v"
    )


def _swapped_parts(session: Session, frame: int) -> None:
    """Exchange the keys and the values of one layer."""
    rows = session.memory.rows
    slot = rows.slot(session.memory.slot_of(frame))
    place = slice(slot, slot + rows.num_visual)
    keys, values = (session.backend.read(session.calls.memory[f"memory.00.{p}"]) for p in "kv")
    _changed_rows(session, place, lambda _: values[:, :, place], "00.k")
    _changed_rows(session, place, lambda _: keys[:, :, place], "00.v")


def _forgotten_history(session: Session, frame: int) -> None:
    """Let the encoder forget the images before the next frame."""
    del frame
    for _, tensor in session.encoder.state_arrays().values():
        session.backend.zero(tensor)


def _short_window(session: Session) -> Break:
    """See one frame less than the window holds."""
    true = session.memory._is_held  # noqa: SLF001 - to break it
    anchors, oldest = session.contract.memory.num_anchors, session.contract.num_ring_slots - 1

    def is_held(frame: int, now: int) -> bool:
        return true(frame, now) and not (frame >= anchors and now - frame >= oldest)

    return _replaced(session.memory, "_is_held", is_held)


def _no_anchors(session: Session) -> Break:
    """Let the ring run over the anchors."""
    num_slots = session.memory.rows.num_slots
    return _replaced(session.memory, "slot_of", lambda frame: frame % num_slots)


def _unhidden_row(session: Session) -> Break:
    """Show a place of the gist table that nothing has been written to."""
    true = session.memory.num_table_places
    return _replaced(session.memory, "num_table_places", lambda frames: true(frames) + 1)


def _step_short(session: Session) -> Break:
    """Denoise in one step less."""
    true, steps = session.denoise, session.contract.conventions.num_steps
    return _replaced(session, "denoise", lambda noise: true(noise, max(steps - 1, 1)))


def _other_text(script: Script, _: InferenceContract) -> Script:
    """Give the keys and values of another instruction."""
    return replace(script, context=script.other_context)


FAULTS = (
    Fault(name="swapped camera", says=r"latents, from frame 0", script=_images(_swap_cameras),
          needs=_has_mosaic),
    Fault(name="wrong mosaic order", says=r"latents, from frame 0", script=_images(_wrong_mosaic),
          needs=_has_mosaic),
    Fault(name="BGR instead of RGB", says=r"latents, from frame 0",
          script=_images(lambda images, _: images[:, ::-1])),
    Fault(name="pixels from 0 to 1", says=r"latents, from frame 0",
          script=_images(lambda images, _: (images + 1) / 2)),
    Fault(name="images of a group in reverse", says=r"latents, from frame 1",
          script=_images(lambda images, _: images[:, :, ::-1], first=1),
          needs=lambda contract: _remembers(contract) and contract.images_per_frame > 1),
    Fault(name="dropped frame", says=rf"latents, from frame {_AT}", script=_dropped_frame),
    Fault(name="frame given twice", says=rf"latents, from frame {_AT}",
          script=_replaced_frame(_AT - 1)),
    Fault(name="encoder forgets the images before", says=rf"latents, from frame {_AT + 1}",
          session=_after_frame(_forgotten_history),
          needs=lambda contract: contract.conventions.vae_history == "continuous"),
    Fault(name="frame at a shifted position", says=rf"keys of layer 0, from frame {_AT}",
          session=_shifted("of_frame"), needs=_remembers),
    Fault(name="actions at a shifted position", says=rf"actions, from frame {_AT}",
          session=_shifted("of_chunk"),
          needs=lambda contract: _remembers(contract)
          and contract.conventions.action_position != "sequence"),
    Fault(name="stale slot", says=rf"keys of layer 0, from frame {_AT} on \(\d+ visual",
          session=_after_frame(_stale_slot), needs=_remembers),
    Fault(name="gist never written to the table",
          says=rf"keys of layer 0, from frame {_AT} on \(\d+ gist",
          session=_after_frame(_lost_gist), needs=_has_gists),
    Fault(name="gist of the frame before",
          says=rf"(keys|values) of layer \d, from frame {_AT} on \(\d+ gist",
          session=_after_frame(_old_gist), needs=_has_gists),
    Fault(name="values rounded in one layer", says=rf"values of layer 1, from frame {_AT}",
          session=_after_frame(_coarse), needs=_remembers),
    Fault(name="keys and values exchanged in one layer",
          says=rf"keys of layer 0, from frame {_AT}",
          session=_after_frame(_swapped_parts), needs=_remembers),
    Fault(name="window one frame short", says=r"keys of layer 1, from frame \d+",
          session=_short_window,
          needs=lambda contract: _remembers(contract) and contract.num_ring_slots > 1),
    Fault(name="anchors evicted", says=r"(keys of layer 1|actions), from frame \d+",
          session=_no_anchors,
          needs=lambda contract: _remembers(contract) and contract.memory.num_anchors > 0),
    Fault(name="unwritten row seen", says=r"(keys of layer 1|actions), from frame 0",
          session=_unhidden_row, needs=_has_gists),
    Fault(name="another instruction", says=r"keys of layer 1, from frame 0", script=_other_text),
    Fault(name="stale joint state", says=rf"(keys of layer 1|actions), from frame {_AT}",
          script=_stale_state),
    Fault(name="another seed", says=rf"actions, from frame {_AT}", script=_other_noise),
    Fault(name="one denoising step less", says=r"actions, from frame 0", session=_step_short,
          needs=lambda contract: contract.conventions.num_steps > 1),
)  # fmt: skip
"""All faults that the ladder is tried on."""
