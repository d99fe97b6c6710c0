"""Long jobs: corpora into parts that appear whole, in a directory that says what is in it and what is left to do.

inputs (names to pieces of files) -> streams, readers, queries (pieces to rows) -> columns (rows to texts) -> ahead
(a thread that reads) -> run (parts, one after the other) -> formats (a part as bytes) -> store (bytes to names).
job says what is done; merge joins ranks. Knows no model: an `Encoder` is given.
"""
