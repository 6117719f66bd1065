"""Ways to damage a file, and the law that whoever reads it must keep."""

import copy
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from memorywam_runtime.errors import MemorywamError

__all__ = ["HOSTILE", "NO_FILES", "damaged", "document_bytes", "edited", "fuzzed", "lawful"]

Read = Callable[[bytes], object]
Mutate = Callable[[Any, random.Random], Any]

_MOST_S = 20.0
"""Of one file of kilobytes, on a busy machine."""
_MOST_GROWTH_KIB = 1 << 20
"""Of the process, while thousands of such files are read."""


class Raw(str):
    """Text that stands in JSON as it is: numbers that no value of Python is written as."""

    __slots__ = ()


HOSTILE: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30,
    -(2**63), 0.5, -0.0, 1e308, -1e308, 1e-320, 1e-45, 1e39, Raw("1e999"), Raw("NaN"),
    Raw("Infinity"), Raw("-" + "9" * 400), Raw("9" * 5000), Raw("[" * 5000 + "]" * 5000), "", ".",
    "..", "../../etc/passwd", "/etc/passwd", "/dev/zero", "a\\..\\b", "C:\\x", "x" * 5000, "\0",
    "\x1b[2J\x1b]0;owned\a", "\u202etxt.exe", "\ud800", "a\nb", "{i}", "%s%n", [], {}, [[]], [None],
    ["a", "a"], {"": ""}, {"a": {"a": {}}}, [0] * 1000, [1e308, -1e308], ["../x"],
)  # fmt: skip
"""What a field might hold that nobody thought of."""
_SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to four things wrong: bits, lengths, pieces lost or doubled."""
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place, length = rng.randrange(len(found) + 1), rng.choice((1, 1, 2, 4, 8, 64, 1000))
        match rng.randrange(8):
            case 0:
                del found[place:]
            case 1 if found:
                found[place % len(found)] ^= 1 << rng.randrange(8)
            case 2 if found:
                found[place % len(found)] = rng.randrange(256)
            case 3:
                size, width = rng.choice(_SIZES), rng.choice((1, 2, 4, 8))
                number = (size % (1 << 8 * width)).to_bytes(width, "little")
                found[place : place + width] = rng.choice((number, number[::-1]))
            case 4:
                del found[place : place + length]
            case 5:
                found[place:place] = found[place : place + length]
            case 6:
                found[place : place + length] = bytes(length)
            case _:
                found[place:place] = rng.randbytes(length)
        if not found:
            break
    return bytes(found)


def edited(document: Any, rng: random.Random) -> Any:
    """Return a JSON document with one to three fields lost, doubled, renamed or made hostile."""
    found = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = _places(found) or [([found], 0)]
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[f"{key}{rng.choice(('_', ' ', chr(0), chr(27)))}"] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.extend(holder[key : key + 1] * rng.choice((1, 2, 50)))
            case 3:
                holder[key] = copy.deepcopy(rng.choice(_places(found))[0])
            case _:
                holder[key] = copy.deepcopy(rng.choice(HOSTILE))
        if not found:
            break
    return found


def document_bytes(document: Any) -> bytes:
    """Return a document as JSON, what is no JSON too."""
    raws: list[str] = []

    def marked(part: Any) -> Any:
        if isinstance(part, Raw):
            raws.append(part)
            return f"\x01raw{len(raws) - 1}\x01"
        if isinstance(part, dict):
            return {name: marked(one) for name, one in part.items()}
        return [marked(one) for one in part] if isinstance(part, list) else part

    text = json.dumps(marked(document))
    for index, raw in enumerate(raws):
        text = text.replace(f'"\\u0001raw{index}\\u0001"', raw)
    return text.encode("utf-8", "surrogatepass")


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Return every place in a document, as what holds it and under which key."""
    found, left = [], [document]
    while left:
        part = left.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part))
        for key in keys:
            found.append((part, key))
            if isinstance(part[key], dict | list):
                left.append(part[key])
    return found


def lawful(read: Callable[[], object], what: str) -> str:
    """Call a reader: it returns, or refuses in words of ours, soon.

    Returns:
        The refusal; nothing where it read the file.
    """
    started, told = time.monotonic(), ""
    try:
        read()
    except MemorywamError as error:
        told = str(error)
        assert told, f"{what}: refused without a word"
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    took_s = time.monotonic() - started
    assert took_s < _MOST_S, f"{what}: took {took_s:.0f} s ({told or 'read'})"
    return told


def fuzzed(
    read: Read,
    originals: list[Any],
    mutate: Mutate,
    *,
    count: int,
    name: str,
    encode: Callable[[Any], bytes] = bytes,
    is_guided: bool = False,
) -> int:
    """Read many damaged files; return how many of them were read all the same.

    Args:
        read: Reads a file's bytes.
        originals: Whole ones, bytes or documents.
        mutate: Damages one.
        count: Files.
        name: Of the reader, for the failure; `ATTACK_SEED` in the environment tries other ones.
        encode: A document's bytes.
        is_guided: Damage further what reached a line of ours that nothing had reached.
    """
    base = int(os.environ.get("ATTACK_SEED", "0"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    corpus, seen, num_read = list(originals), set[tuple[str, int]](), 0
    for seed in range(base, base + count):
        rng = random.Random(seed)
        one = mutate(rng.choice(corpus), rng)
        content = encode(one)
        what = f"{name}, seed {seed} of {base} to {base + count - 1}: {content[:200]!r}"
        reading = partial(read, content)
        if is_guided:
            lines = set[tuple[str, int]]()
            num_read += not lawful(partial(_traced, reading, lines), what)
            if lines - seen and len(corpus) < 2000:
                corpus.append(one)
                seen |= lines
        else:
            num_read += not lawful(reading, what)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < _MOST_GROWTH_KIB, f"{what}: took {grown >> 10} MiB"
    return num_read


def _traced(call: Callable[[], object], lines: set[tuple[str, int]]) -> object:
    """Call, and note which of our lines were reached."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        name = frame.f_code.co_filename
        if "memorywam_" not in Path(name).parent.as_posix():
            return None
        if event == "line":
            lines.add((name, frame.f_lineno))
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return call()
    finally:
        sys.settrace(before)


def pipe(path: Path) -> None:
    """Put a pipe in a file's place."""
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    """Put a directory in a file's place."""
    path.unlink()
    path.mkdir()


def device(path: Path) -> None:
    """Put a link to a device without an end in a file's place."""
    path.unlink()
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    """Put a link to itself in a file's place."""
    path.unlink()
    path.symlink_to(path.name)


NO_FILES = (pipe, directory, device, loop)
"""What may stand in a file's place; of the last, nobody can even ask what it is."""
