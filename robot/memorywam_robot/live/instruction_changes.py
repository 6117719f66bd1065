"""Other instructions in the middle of an episode: which, after which steps, and made in order."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from memorywam_runtime.errors import InputError

__all__ = ["Changes", "InstructionChange", "changes_from_arguments", "check_changes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionChange:
    """Another instruction."""

    step: int
    """Environment steps of the episode, all told, after which it comes."""
    instruction: str
    keep_memory: bool = False
    """Whether frames stay that were encoded with the old text."""


class Instructed(Protocol):
    """What takes another instruction; `LiveEpisode` does."""

    @property
    def num_executed(self) -> int:
        """Return environment steps that are over."""
        ...

    def set_instruction(self, text: str, *, keep_memory: bool = False) -> None:
        """Take another instruction, between two ticks."""
        ...


class Changes:
    """Those of one episode, each made once."""

    def __init__(self, changes: Sequence[InstructionChange]) -> None:
        """Make none yet."""
        self._waiting = deque(changes)

    def make(self, episode: Instructed) -> None:
        """Make those that are due, between two ticks of an episode that goes on."""
        while self._waiting and episode.num_executed >= self._waiting[0].step:
            change = self._waiting.popleft()
            episode.set_instruction(change.instruction, keep_memory=change.keep_memory)


def changes_from_arguments(
    texts: Sequence[str], *, keep_memory: bool = False
) -> tuple[InstructionChange, ...]:
    """Return what `--then STEP:TEXT` asks for.

    Raises:
        InputError: not of the form, no step above 0, steps that do not rise, or memory to keep
            where nothing changes.
    """
    if keep_memory and not texts:
        raise InputError("found --keep-memory without --then STEP:TEXT; expected both, or neither")
    changes: list[InstructionChange] = []
    for text in texts:
        step, colon, instruction = text.partition(":")
        if not (colon and instruction.strip() and step.isascii() and step.isdigit() and int(step)):
            raise InputError(
                f"found --then '{text}'; expected STEP:TEXT with a step above 0, such as "
                "'80:press the red button'"
            )
        if changes and int(step) <= changes[-1].step:
            raise InputError(
                f"found --then {step} after --then {changes[-1].step}; expected steps that rise"
            )
        changes.append(
            InstructionChange(step=int(step), instruction=instruction, keep_memory=keep_memory)
        )
    return tuple(changes)


def check_changes(changes: Sequence[InstructionChange], num_steps: int) -> None:
    """Refuse a change that would come after the end of the episode.

    Args:
        changes: In their order.
        num_steps: Of the episode; from empty memory it has as many again.

    Raises:
        InputError: naming the first.
    """
    end = num_steps
    for change in changes:
        if change.step >= end:
            raise InputError(
                f"found another instruction after step {change.step}; expected a step below {end}, "
                "where the episode ends"
            )
        if not change.keep_memory:
            end = change.step + num_steps
