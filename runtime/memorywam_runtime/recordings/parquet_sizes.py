"""How much the columns of a parquet file unpack to, told by its footer.

600 bytes may unpack to gigabytes. The footer is read here because pyarrow, asked for a column of a
damaged one, ends the process (26.0: `RowGroupMetaData.column` lets a C++ exception out).
Layout: Thrift's compact protocol (apache/thrift doc/specs/thrift-compact-protocol.md) and
`FileMetaData` of apache/parquet-format src/main/thrift/parquet.thrift.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memorywam_runtime.errors import InputError

__all__ = ["ColumnPiece", "column_pieces"]

_MAGIC = b"PAR1"
_MOST_FOOTER_BYTES = 1 << 26
_DEEPEST = 32
_TRUE, _FALSE, _BYTE, _I16, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (
    1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12,
)  # fmt: skip
_ROW_GROUPS, _COLUMNS, _COLUMN_META = 4, 1, 3
_PATH, _NUM_VALUES, _NUM_BYTES = 3, 5, 6
"""Field numbers of `FileMetaData`, `RowGroup`, `ColumnChunk` and `ColumnMetaData`."""


@dataclass(frozen=True, slots=True)
class ColumnPiece:
    """One column of one row group."""

    path: tuple[str, ...]
    """Names from the root: a list is ("observation.state", "list", "element")."""
    num_values: int
    num_bytes: int
    """Unpacked, still encoded."""


def column_pieces(file: Path) -> Iterator[ColumnPiece]:
    """Yield every column of every row group.

    Raises:
        InputError: no parquet file, or its footer is damaged.
    """
    try:
        for group in _Compact(_footer(file)).struct().get(_ROW_GROUPS, ()):
            for column in group[_COLUMNS]:
                found = column[_COLUMN_META]
                path = tuple(name.decode() for name in found[_PATH])
                yield ColumnPiece(path, int(found[_NUM_VALUES]), int(found[_NUM_BYTES]))
    # Whatever is damaged may be read as another type, or end too early.
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be read: its footer is damaged; copy it again") from error


def _footer(file: Path) -> bytes:
    """Return the footer: the last 8 bytes are its length and the file's mark."""
    with file.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - 8))
        end = stream.read()
        length = int.from_bytes(end[:4], "little")
        if end[4:] != _MAGIC or length > min(size - 8, _MOST_FOOTER_BYTES):
            raise ValueError("no footer")
        stream.seek(size - 8 - length)
        return stream.read(length)


class _Compact:
    """Reads Thrift's compact protocol: structs as dicts by field number."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at, self._depth = content, 0, 0

    def struct(self) -> dict[int, Any]:
        """Return the next struct."""
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            # A field that is a bool has its value in its type.
            found[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return found

    def _value(self, kind: int) -> Any:  # noqa: ANN401 - of any type
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError("too deep")
        found = self._of_kind(kind)
        self._depth -= 1
        return found

    def _of_kind(self, kind: int) -> Any:  # noqa: ANN401
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if _I16 <= kind <= _I64:
            return self._integer()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15) for _ in range(count)]
        if kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(count)]
        if kind == _STRUCT:
            return self.struct()
        raise ValueError(f"no type {kind}")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._content):
            raise ValueError("too short")
        self._at, begun = end, self._at
        return self._content[begun:end]

    def _integer(self) -> int:
        """Return a zigzag number."""
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        number, shift = 0, 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("too long a number")
