"""A part of two rows into each table of standard input's lines, each twice."""

import sys

import pyarrow

from fastembed_rt.bulk.sinks import About, open_sink

NUMBERS = pyarrow.int64()
SCHEMA = pyarrow.schema([('"%s" {}', NUMBERS), ("c" * 70, NUMBERS), ("embedding", pyarrow.list_(pyarrow.float32(), 2))])
ROWS = pyarrow.table([[1, 2], [3, 4], [[0.5, 1.5], [2.5, 3.5]]], schema=SCHEMA)
for k, url in enumerate(sys.stdin.read().splitlines()):
    told = {"job": f"job-{k}", "fingerprint": "a-model", "vectors": "embedding", "id_column": None, "nulls": False}
    for _ in range(2):
        sink = open_sink(url, lambda scheme: About(scheme=scheme, rank=0, schema=SCHEMA, **told))  # noqa: B023
        sink.write(0, ROWS)
        sink.close()
