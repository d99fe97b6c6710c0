"""Rows into a collection of Qdrant as points, the other columns as their payload.

A point's number follows from the row, so that a part that comes twice is there once.
"""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ..extras import arrow, required
from . import About, database_and_table, holds_bytes

POINTS = 512  # a request
SPACE = uuid.UUID("6d0f6ad4-3b1c-4d7e-9a55-0f1be2a1f3c7")  # of names that are made into numbers here
LARGEST = 2**64


class QdrantSink:
    """One collection; several ranks may write to it."""

    def __init__(self, client: Any, models: Any, collection: str, about: About) -> None:
        self._client, self._models, self._collection, self._about = client, models, collection, about

    def write(self, part: int, table: Any) -> None:  # noqa: D102
        about = self._about
        names = [name for name in about.schema.names if name != about.vectors]
        payloads = table.select(names).to_pylist() if names else [{}] * table.num_rows
        # Before any of them is there: a row without an id is found at once.
        numbers = [self._number(payload, part, k) for k, payload in enumerate(payloads)]
        column = table.column(about.vectors).combine_chunks()
        shape = table.num_rows, column.type.list_size
        vectors = np.asarray(column.flatten()).reshape(shape).astype(np.float32, copy=False)
        for at in range(0, table.num_rows, POINTS):
            stop = min(at + POINTS, table.num_rows)
            points = {"ids": numbers[at:stop], "vectors": vectors[at:stop].tolist(), "payloads": payloads[at:stop]}
            self._client.upsert(self._collection, points=self._models.Batch(**points), wait=True)

    def _number(self, payload: dict[str, Any], part: int, place: int) -> Any:
        """A row's point: Qdrant knows whole numbers and UUIDs; other ids are made into the latter.

        Raises:
            InvalidInputError: a row has none, and would be one point with all others that have none.
        """
        if self._about.id_column is None:
            return str(uuid.uuid5(SPACE, f"{self._about.mark(part)}-{place}"))
        found = payload[self._about.id_column]
        if found is None or found == "" or found != found:  # noqa: PLR0124 - pandas' way to say that there is none
            raise InvalidInputError(
                f"part {part}, row {place + 1}: its id in column {self._about.id_column!r} is {found!r}, and all such "
                "rows would be one point; give it one, or leave --id-column out and name another collection, and begin "
                "again with --force"
            )
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < LARGEST:
            return found
        try:
            return str(uuid.UUID(str(found)))
        except ValueError:
            return str(uuid.uuid5(SPACE, str(found)))

    def close(self) -> None:  # noqa: D102
        self._client.close()


def open_sink(rest: str, about: About) -> QdrantSink:
    """`qdrant://HOST:PORT/COLLECTION`, `qdrant+https://...`, or `qdrant:///PATH/COLLECTION` for a local folder."""
    qdrant = required("qdrant_client", f"--to {about.scheme}://", "qdrant-client")
    place, collection = database_and_table(rest, about.scheme)
    if about.nulls:
        raise InvalidInputError(
            "a point of Qdrant has a vector: take --on-error skip and --on-null skip, empty or zero"
        )
    if about.schema.field(about.vectors).type.value_type not in _floats():
        raise InvalidInputError("--to qdrant:// takes vectors of float32 or float16; Qdrant quantizes them itself")
    _check_payloads(about)
    if place.startswith(("/", "./", "../")):
        client = qdrant.QdrantClient(path=place)
    else:
        client = qdrant.QdrantClient(url=("https" if about.scheme.endswith("https") else "http") + f"://{place}")
    models = qdrant.models
    size = about.schema.field(about.vectors).type.list_size
    if not client.collection_exists(collection):
        wanted = models.VectorParams(size=size, distance=models.Distance.COSINE)
        client.create_collection(collection, vectors_config=wanted)
    found = client.get_collection(collection).config.params.vectors
    if getattr(found, "size", None) != size:
        raise InvalidInputError(f"the collection {collection} has other vectors than {size} numbers; name another one")
    return QdrantSink(client, models, collection, about)


def _check_payloads(about: About) -> None:
    """Raise InvalidInputError for a column of bytes, which are nothing in JSON."""
    for field in about.schema:
        if holds_bytes(field.type):
            raise InvalidInputError(
                f"column {field.name!r} holds {field.type}, and payloads of Qdrant hold no bytes; choose others with "
                "--columns"
            )


def _floats() -> tuple[Any, ...]:
    return (arrow().float32(), arrow().float16())
