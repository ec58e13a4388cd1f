"""Writes parquet-*.parquet with pyarrow 26.0.1: python3 make_parquet.py

The text of row i is TEXT(i); every seventh row of the nullable files is null. Small pages and row groups, so that a reader
has to cross them. Beside the text: a number, a list, and bytes of which row 200 is not UTF-8.
"""

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 300


def text(i):
    return f"row {i}: " + "żółw 龍 " * (i % 5) + ("\n" if i % 3 == 0 else "")


def table(nulls):
    rows = [None if nulls and i % 7 == 3 else text(i) for i in range(ROWS)]
    return pa.table({
        "id": pa.array(range(ROWS), pa.int64()),
        "text": pa.array(rows, pa.string()),
        "tags": pa.array([[f"t{i % 4}"] for i in range(ROWS)], pa.list_(pa.string())),
        "raw": pa.array([b"ok" if i != 200 else b"ab\xff" for i in range(ROWS)], pa.binary()),
    })


for codec, nulls, dictionary, version in [
    ("snappy", False, True, "1.0"),
    ("zstd", True, False, "2.0"),
    ("gzip", True, True, "2.0"),
    ("lz4", False, False, "1.0"),
    ("brotli", False, True, "1.0"),
    ("none", True, True, "1.0"),
]:
    pq.write_table(
        table(nulls), f"parquet-{codec}.parquet", compression=codec, row_group_size=110, data_page_size=512,
        use_dictionary=dictionary, data_page_version=version, write_statistics=False, store_schema=False,
    )
