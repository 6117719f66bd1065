"""A footer says what a table unpacks to: as pyarrow does, and where that would end the process."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from memorywam_runtime.errors import InputError
from memorywam_runtime.recordings.parquet_sizes import column_pieces


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(3).astype(np.float32) for _ in range(40)]
    return pa.table(
        {
            "state": pa.array(vectors, pa.list_(pa.float32(), 3)),
            "index": pa.array(range(40), pa.int64()),
            "done": pa.array([False] * 39 + [True]),
            "task": pa.array([None, "pick", *["place"] * 38]),
            "image": pa.array([{"bytes": b"x" * n, "path": str(n)} for n in range(40)]),
        },
        metadata={"a": "b" * 3000},
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_group_size": 7, "write_page_index": True},
        {"compression": "zstd", "use_dictionary": False, "version": "1.0"},
        {"write_statistics": False, "store_decimal_as_integer": True},
        {"bloom_filter_options": {"index": {"ndv": 40}}, "sorting_columns": [pq.SortingColumn(1)]},
    ],
)
def test_it_is_what_the_library_says(tmp_path, table, options):
    file = tmp_path / "one.parquet"
    pq.write_table(table, file, **options)
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    theirs = [group.column(index) for group in groups for index in range(group.num_columns)]
    wanted = [(one.path_in_schema, one.num_values, one.total_uncompressed_size) for one in theirs]
    found = list(column_pieces(file))
    assert [(".".join(one.path), one.num_values, one.num_bytes) for one in found] == wanted
    assert len(found) == 6 * len(groups)


def test_more_than_fits_is_told_and_not_read(tmp_path):
    file = tmp_path / "one.parquet"
    values = pa.array(np.zeros(1 << 22, np.float32))
    rows = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    pq.write_table(pa.table({"state": rows}), file)
    assert file.stat().st_size < 1000
    (piece,) = column_pieces(file)
    assert piece.num_values == 1 << 22


def test_any_damage_is_told(tmp_path, table):
    """Every third byte of the footer in turn set to something else: read, or refused."""
    file = tmp_path / "one.parquet"
    pq.write_table(table, file)
    whole = file.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    rng, refused = random.Random(0), []
    for place in range(len(whole) - length - 8, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= rng.randrange(1, 256)
        file.write_bytes(damaged)
        try:
            assert all(isinstance(one.num_values, int) for one in column_pieces(file))
        except InputError as error:
            refused.append(str(error))
    assert 50 < len(refused) < length / 3
    assert set(refused) == {f"{file} cannot be read: its footer is damaged; copy it again"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PAR1",
        b"PAR1\xff\xff\xff\xffPAR1",
        b"PAR1" + b"\x49" + b"\x19" * 5000 + (5001).to_bytes(4, "little") + b"PAR1",
        b"PAR1" + b"\x4c" + b"\x1c" * 5000 + (5001).to_bytes(4, "little") + b"PAR1",
        b"PAR1" + b"\x49\xfc" + b"\xff" * 9 + b"\x7f" + (12).to_bytes(4, "little") + b"PAR1",
    ],
)
def test_what_is_no_footer_is_refused(tmp_path, content):
    file = tmp_path / "one.parquet"
    file.write_bytes(content)
    with pytest.raises(InputError, match="footer is damaged"):
        list(column_pieces(file))
