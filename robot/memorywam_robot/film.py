"""A film of one simulated episode: the table, the head camera, what was shown, what is kept."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from memorywam_robot.loop import EpisodeResult, EpisodeStart
from memorywam_robot.sim.tasks import HORIZON, Script, frame_from_step
from memorywam_robot.sim.world import World
from memorywam_runtime.contract import InferenceContract
from memorywam_runtime.errors import InputError
from memorywam_runtime.files import atomic_write
from memorywam_runtime.observation import Observation

__all__ = ["FORMATS", "Film", "caption", "film_format"]

FORMATS = {".webp": "WEBP", ".gif": "GIF"}
"""File ending to Pillow's name of the format; both are animated."""

STEPS_PER_PICTURE = 2
PICTURE_MS = 100
LAST_PICTURE_MS = 2500
"""How long the last picture, with the verdict, stays."""

_SCENE_HEIGHT, _SCENE_WIDTH = 360, 480
_SIDE_WIDTH, _STRIP_HEIGHT = 148, 84
_WIDTH, _HEIGHT = _SCENE_WIDTH + _SIDE_WIDTH, _SCENE_HEIGHT + _STRIP_HEIGHT
_INSET = 128
_MARGIN = 10
_CELLS_LEFT = 62
_CELL_HEIGHT = 12

_BACKGROUND, _INK, _FAINT = (24, 27, 32), (236, 238, 241), (62, 67, 76)
_LABEL = (160, 166, 176)
_CUE, _BLINK, _GO = (255, 214, 10), (255, 77, 255), (48, 209, 88)
_IN_FULL, _AS_GIST = (90, 170, 255), (52, 84, 128)


class Film:
    """A subscriber that films the episode of one seed."""

    def __init__(self, world: World, contract: InferenceContract, *, seed: int) -> None:
        """Make a film.

        Args:
            world: Where the episode takes place.
            contract: Of the policy: which frames its memory keeps in full.
            seed: Of the episode to film; others are passed over.
        """
        self._world = world
        self._contract = contract
        self._seed = seed
        self._is_rolling = False
        self._pictures: list[Image.Image] = []

    def on_episode_start(self, start: EpisodeStart) -> None:
        """Take the first picture."""
        self._is_rolling = start.seed == self._seed
        if self._is_rolling:
            self._pictures = [self._picture(caption(self._world.script, 0))]

    def on_observation(self, observation: Observation, captured_ns: int) -> None:
        """Pass over: the film shows the world, not what was taken from it."""

    def on_frame(self, frame: int, steps: Sequence[int]) -> None:
        """Pass over."""

    def on_chunk(self, state: NDArray[np.floating], chunk: NDArray[np.float64]) -> None:
        """Pass over."""

    def on_step(self, step: int, action: NDArray[np.floating]) -> None:
        """Take a picture now and then."""
        if self._is_rolling and step % STEPS_PER_PICTURE == 0:
            text = caption(self._world.script, frame_from_step(step))
            self._pictures.append(self._picture(text))

    def on_episode_end(self, result: EpisodeResult) -> None:
        """Take the last picture again, with the verdict."""
        if self._is_rolling:
            mark = "success" if result.success else "failure"
            self._pictures[-1] = self._picture(f"{mark}: {result.remark}")

    def write(self, path: Path) -> None:
        """Write the film whole or not at all.

        Raises:
            InputError: nothing was filmed, or the file's ending names no format.
        """
        if not self._pictures:
            raise InputError("nothing was filmed: run an episode with this film as a subscriber")
        kind = film_format(path)
        durations_ms = [PICTURE_MS] * (len(self._pictures) - 1) + [LAST_PICTURE_MS]
        buffer = io.BytesIO()
        how = {"quality": 70, "method": 4} if kind == "WEBP" else {"optimize": True}
        self._pictures[0].save(
            buffer,
            format=kind,
            save_all=True,
            append_images=self._pictures[1:],
            duration=durations_ms,
            loop=0,
            **how,
        )
        atomic_write(path, buffer.getvalue())

    def _picture(self, text: str) -> Image.Image:
        """Return the table now, what the policy sees of it, and the strip below."""
        picture = Image.new("RGB", (_WIDTH, _HEIGHT), _BACKGROUND)
        picture.paste(Image.fromarray(self._world.render_film(_SCENE_HEIGHT, _SCENE_WIDTH)))
        head = Image.fromarray(self._world.observe().images["head"])
        corner = (_SCENE_WIDTH + _MARGIN, _MARGIN + 20)
        picture.paste(head.resize((_INSET, _INSET), Image.Resampling.NEAREST), corner)
        draw = ImageDraw.Draw(picture)
        draw.text((corner[0], _MARGIN), "the head camera", fill=_LABEL, font=_font(13))
        for index, (colour, label) in enumerate(self._legend()):
            top = corner[1] + _INSET + 22 + 22 * index
            draw.rectangle((corner[0], top, corner[0] + 12, top + 12), fill=colour)
            draw.text((corner[0] + 20, top - 2), label, fill=_LABEL, font=_font(13))
        draw.text((_MARGIN, _SCENE_HEIGHT + 8), text, fill=_INK, font=_font(17))
        self._draw_strip(draw)
        return picture

    def _legend(self) -> list[tuple[tuple[int, int, int], str]]:
        """Return colours and what they stand for."""
        is_blink = self._world.script.cue_lamp == "blink"
        cue = (_BLINK, "lamp blinks") if is_blink else (_CUE, "lamp is lit")
        return [cue, (_GO, "go"), (_IN_FULL, "kept in full"), (_AS_GIST, "kept as gist")]

    def _draw_strip(self, draw: ImageDraw.ImageDraw) -> None:
        """Draw one column per frame: the lamp lit in it, and how memory keeps it now."""
        script, now = self._world.script, self._world.frame_index
        cell = (_WIDTH - _MARGIN - _CELLS_LEFT) / (script.num_frames + 1)
        shown, kept = _SCENE_HEIGHT + 38, _SCENE_HEIGHT + 60
        draw.text((_MARGIN, shown - 2), "shown", fill=_LABEL, font=_font(13))
        draw.text((_MARGIN, kept - 2), "kept", fill=_LABEL, font=_font(13))
        for frame in range(script.num_frames + 1):
            left, right = _CELLS_LEFT + frame * cell, _CELLS_LEFT + (frame + 1) * cell - 3
            for top, colour in ((shown, self._lamp(frame)), (kept, self._keeping(frame, now))):
                draw.rectangle((left, top, right, top + _CELL_HEIGHT), fill=colour)
        # The image after step 0 is frame 0; those after steps 1 to 16 are frame 1; and so on.
        x = _CELLS_LEFT + cell * (self._world.step_count + HORIZON - 1) / HORIZON
        draw.rectangle((x - 2, shown - 4, x + 1, kept + _CELL_HEIGHT + 4), fill=_INK)

    def _lamp(self, frame: int) -> tuple[int, int, int]:
        """Return the colour of what is lit in a frame."""
        lit = self._world.script.lit_lamps(frame)
        if "go" in lit:
            return _GO
        return _FAINT if not lit else _BLINK if "blink" in lit else _CUE

    def _keeping(self, frame: int, now: int) -> tuple[int, int, int]:
        """Return the colour of how a frame is kept."""
        if frame > now:
            return _FAINT
        is_anchor = frame < self._contract.memory.num_anchors
        is_recent = now - frame < self._contract.num_ring_slots
        return _IN_FULL if is_anchor or is_recent else _AS_GIST


def caption(script: Script, frame: int) -> str:
    """Say what the lamps show in a frame, and how long ago they showed what matters."""
    lit = script.lit_lamps(frame)
    past = [cue for cue in script.cue_frames if cue < frame]
    if "go" in lit:
        cue = "the last blink" if script.task == "count" else "the lamp"
        text = f"go! {cue} was {frame - script.cue_frames[-1]} frames ago"
    elif lit and script.task == "count":
        text = f"blink {len(past) + 1}"
    elif lit:
        text = "the lamp is lit: remember it"
    elif not past:
        text = "nothing shown yet"
    else:
        text = f"dark since frame {past[-1] + 1}"
    return f"frame {frame}: {text}"


def film_format(path: Path) -> str:
    """Return Pillow's name of the format that a film file's ending stands for.

    Raises:
        InputError: another ending; those that there are are listed.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"found a film named {path}; end its name in {' or '.join(FORMATS)}")
    return FORMATS[path.suffix]


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return the font that comes with Pillow."""
    return ImageFont.load_default(size)
