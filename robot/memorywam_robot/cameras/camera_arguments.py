"""Words of the command line that say which camera is which."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from memorywam_robot.adapters.robot_words import words_from_argument
from memorywam_robot.cameras.realsense_options import RealSenseOptions, Stream
from memorywam_runtime.errors import InputError

__all__ = ["CameraKind", "CameraSpec", "cameras_from_arguments"]

CameraKind = Literal["realsense", "realsense-file", "realsense-sim", "source", "lerobot"]
"""A device by serial, a recording of one, the robot's own images through librealsense, the same
without it, and a camera whose type LeRobot knows."""

_FORM = "NAME=KIND[:ID][,OPTION...]"
_EXAMPLES = (
    "head=realsense:SERIAL,usb2 or head=realsense-file:PATH or head=realsense-sim or "
    "head=lerobot:opencv,index_or_path=0,fps=30,width=640,height=480"
)
_IDS = {"realsense": "SERIAL", "realsense-file": "PATH", "lerobot": "TYPE"}
_WORDS: dict[str, tuple[str, ...]] = {
    "realsense": ("usb2", "lock", "master", "slave", "WIDTHxHEIGHT@HZ"),
    "realsense-file": ("WIDTHxHEIGHT@HZ",),
    "realsense-sim": (),
    "source": (),
    "lerobot": (),
}
_STREAM = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})@([1-9][0-9]{0,2})")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSpec:
    """One camera as it was asked for."""

    name: str
    kind: CameraKind
    realsense: RealSenseOptions | None = None
    """Of a device or file; None where images come from elsewhere."""
    lerobot: str = ""
    """`TYPE[,KEY=VALUE...]` of one of LeRobot's; empty for the others."""


def cameras_from_arguments(texts: Sequence[str]) -> tuple[CameraSpec, ...]:
    """Return what was asked for, in the order given; nothing is opened.

    Raises:
        InputError: not of the form, or a name or device twice; the text says what is expected.
    """
    specs = tuple(_spec(text) for text in texts)
    for index, spec in enumerate(specs):
        for other in specs[:index]:
            if spec.name == other.name:
                raise InputError(f"camera '{spec.name}' is given twice; expected each name once")
            one, two = spec.realsense, other.realsense
            if one is not None and two is not None and one.serial and one.serial == two.serial:
                raise InputError(
                    f"cameras '{other.name}' and '{spec.name}' are both the device {one.serial}; "
                    "expected a device each"
                )
            if spec.lerobot and spec.lerobot == other.lerobot:
                raise InputError(
                    f"cameras '{other.name}' and '{spec.name}' are both {spec.lerobot}; expected a "
                    "device each"
                )
    return specs


def _spec(text: str) -> CameraSpec:
    name, equals, rest = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise InputError(f"found camera '{text}'; expected {_FORM}, such as {_EXAMPLES}")
    head, *words = rest.split(",")
    kind, _, identity = head.partition(":")
    for known in get_args(CameraKind):
        if kind == known:
            wanted = _IDS.get(known)
            if bool(identity) != (wanted is not None):
                form = f"{known}:{wanted}" if wanted else f"{known} alone"
                raise InputError(f"camera '{name}' is {head or 'nothing'}; expected {form}")
            if known == "lerobot":
                text = rest.partition(":")[2]
                words_from_argument(text)  # its options are LeRobot's own, but of this form
                return CameraSpec(name=name, kind=known, lerobot=text)
            return CameraSpec(
                name=name, kind=known, realsense=_options(name, known, identity, words)
            )
    kinds = ", ".join(get_args(CameraKind))
    raise InputError(f"camera '{name}' is of the kind '{kind}'; expected one of {kinds}")


def _options(
    name: str, kind: CameraKind, identity: str, words: Sequence[str]
) -> RealSenseOptions | None:
    stream: Stream | None = None
    flags: set[str] = set()
    for word in words:
        match = _STREAM.fullmatch(word)
        if match and "WIDTHxHEIGHT@HZ" in _WORDS[kind] and stream is None:
            width, height, hz = map(int, match.groups())
            stream = (width, height, hz)
        elif word in _WORDS[kind] and word not in flags:
            flags.add(word)
        else:
            known = ", ".join(_WORDS[kind]) or "none"
            raise InputError(
                f"camera '{name}' has the option '{word}'; options of {kind} are, each at most "
                f"once: {known}"
            )
    if flags >= {"master", "slave"}:
        raise InputError(f"camera '{name}' is master and slave; expected at most one")
    if not kind.startswith("realsense") or kind not in _IDS:
        return None
    return RealSenseOptions(
        serial=identity if kind == "realsense" else "",
        file=Path(identity) if kind == "realsense-file" else None,
        stream=stream,
        is_usb2_allowed="usb2" in flags,
        is_locked="lock" in flags,
        sync="master" if "master" in flags else "slave" if "slave" in flags else "",
    )
