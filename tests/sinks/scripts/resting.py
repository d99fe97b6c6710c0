"""Parts of a row through a sink whose connection is ended before each: `resting.py URL`."""

import sys

import psycopg
import pyarrow

from fastembed_rt.bulk.sinks import About, open_sink

SCHEMA = pyarrow.schema([("id", pyarrow.int64()), ("embedding", pyarrow.list_(pyarrow.float32(), 2))])
END = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database()"
address = sys.argv[1].replace("pgvector", "postgresql").rpartition("/")[0]
told = {"job": "a-job", "fingerprint": "a-model", "vectors": "embedding", "id_column": None, "nulls": False}
sink = open_sink(sys.argv[1], lambda scheme: About(scheme=scheme, rank=0, schema=SCHEMA, **told))
with psycopg.connect(address, autocommit=True) as connection:
    for k in range(3):
        ended = connection.execute(f"{END} AND pid <> pg_backend_pid()").fetchall()
        assert ended == [(True,)], ended
        sink.write(k, pyarrow.table({"id": [k], "embedding": [[0.5, 1.5]]}, schema=SCHEMA))
sink.close()
