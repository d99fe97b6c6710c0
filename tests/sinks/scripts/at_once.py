"""Eight ranks of a job that open a store in one moment, and write eight parts of a row each: `at_once.py URL`.

A pooler gives each transaction another connection, which knows nothing that was prepared in one before.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pyarrow

from fastembed_rt.bulk.sinks import About, open_sink

SCHEMA = pyarrow.schema([("id", pyarrow.int64()), ("embedding", pyarrow.list_(pyarrow.float32(), 2))])
RANKS = 8
barrier = threading.Barrier(RANKS)


def rank(number):
    def about(scheme):
        told = {"job": "a-job", "fingerprint": "a-model", "vectors": "embedding", "id_column": None, "nulls": False}
        return About(scheme=scheme, rank=number, schema=SCHEMA, **told)

    barrier.wait()
    sink = open_sink(sys.argv[1], about)
    for part in range(8):
        sink.write(part, pyarrow.table({"id": [number], "embedding": [[0.5, 1.5]]}, schema=SCHEMA))
    prepared = sink._connection.execute("SELECT statement FROM pg_prepared_statements").fetchall()
    assert not prepared, prepared
    sink.close()


with ThreadPoolExecutor(RANKS) as pool:
    list(pool.map(rank, range(RANKS)))
