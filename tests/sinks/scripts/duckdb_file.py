"""Texts in a table of DuckDB: `duckdb_file.py FILE` with the texts as JSON on standard input."""

import json
import sys

import duckdb

with duckdb.connect(sys.argv[1]) as connection:
    connection.execute("CREATE TABLE notes (n INTEGER, body VARCHAR, made TIMESTAMP, tags VARCHAR[])")
    rows = [(k, text, "2020-01-01", ["a"]) for k, text in enumerate(json.load(sys.stdin))]
    connection.executemany("INSERT INTO notes VALUES (?, ?, ?, ?)", rows)
