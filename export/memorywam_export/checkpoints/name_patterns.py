"""Patterns of tensor names: literal text, and placeholders for the parts that vary."""

import re
from collections.abc import Mapping, Sequence

from memorywam_runtime.errors import InputError

__all__ = ["NamePattern"]

_BUILT_IN = {"i": "0|[1-9][0-9]*", "rest": ".+"}
_PLACEHOLDER = re.compile(r"\{([a-z_]*)\}")


class NamePattern:
    """A name such as `layers.{i}.{expert}_block.{rest}`, matched and filled.

    `{i}` stands for a number, `{rest}` for any text; other placeholders stand for one of the
    words that are given for them. The text around them is literal.

    Raises:
        InputError: a placeholder that nothing is given for, or one that stands twice.
    """

    def __init__(self, text: str, words: Mapping[str, Sequence[str]] | None = None) -> None:
        self.text = text
        forms = {name: "|".join(map(re.escape, each)) for name, each in (words or {}).items()}
        forms |= _BUILT_IN
        # Odd pieces are the placeholders' names, even ones the literal text around them.
        pieces = _PLACEHOLDER.split(text)
        self.placeholders = tuple(pieces[1::2])
        unknown = sorted(set(self.placeholders) - set(forms))
        if unknown or len(set(self.placeholders)) != len(self.placeholders):
            raise InputError(
                f"name pattern '{text}': found the placeholders {list(self.placeholders)}; "
                f"expected each once, of {sorted(forms)}"
            )
        for index, piece in enumerate(pieces):
            is_placeholder = index % 2 == 1
            pieces[index] = f"(?P<{piece}>{forms[piece]})" if is_placeholder else re.escape(piece)
        self._form = re.compile("".join(pieces), re.DOTALL)

    def match(self, name: str) -> dict[str, str] | None:
        """Return what each placeholder stands for, or None if the name has another form."""
        found = self._form.fullmatch(name)
        return None if found is None else found.groupdict()

    def fill(self, values: Mapping[str, str]) -> str:
        """Return the name with each placeholder replaced."""
        return _PLACEHOLDER.sub(lambda place: values[place[1]], self.text)
