"""Two rows with columns of many types, the second of them null: `typed_rows.py FILE`."""

import decimal
import sys

import pyarrow
from pyarrow import parquet

LONG = "a\t\\N\r\n" * 1_000_000
AT = 1767323045 * 10**9 + 1_000  # 2026-01-02 03:04:05.000001
COLUMNS = {
    "id": (pyarrow.string(), "00000000-0000-0000-0000-000000000001"),
    "text": (pyarrow.string(), LONG),
    "at": (pyarrow.timestamp("ns"), AT + 1),
    "zoned": (pyarrow.timestamp("ms", "Asia/Tokyo"), AT // 10**6),
    "far": (pyarrow.timestamp("s"), 253402300799),
    "day": (pyarrow.date32(), -719162),
    "time": (pyarrow.time64("ns"), (3 * 3600 + 4 * 60 + 5) * 10**9 + 6_000),
    "price": (pyarrow.decimal128(10, 2), decimal.Decimal("1.20")),
    "number": (pyarrow.uint64(), 2**64 - 1),
    "raw": (pyarrow.binary(), b"\x00\xff\\"),
    "more": (
        pyarrow.struct([("a", pyarrow.list_(pyarrow.int64())), ("b", pyarrow.string())]),
        {"a": [1, None], "b": "c"},
    ),
    "hashes": (pyarrow.list_(pyarrow.binary()), [b"\x00"]),
}
OTHERS = {"id": "00000000-0000-0000-0000-000000000002", "text": "a dog"}
table = {name: pyarrow.array([value, OTHERS.get(name)], kind) for name, (kind, value) in COLUMNS.items()}
parquet.write_table(pyarrow.table(table), sys.argv[1])
