"""Rows in a log of DuckDB, as a process leaves it that is killed: `duckdb_log.py FILE STATEMENT`.

Without a statement the log is written back into the file.
"""

import os
import sys

import duckdb

connection = duckdb.connect(sys.argv[1])
if len(sys.argv) == 2:
    connection.execute("CHECKPOINT")
    connection.close()
else:
    connection.execute(sys.argv[2])
    os._exit(0)
