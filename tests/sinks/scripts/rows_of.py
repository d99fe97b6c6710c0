"""What a store holds, read with its own client: `rows_of.py STORE PLACE` writes {id: vector} as JSON."""

import json
import sys


def of_duckdb(place):
    import duckdb

    file, table = place.rsplit("/", 1)
    with duckdb.connect(file, read_only=True) as connection:
        (kind,) = connection.execute(f"SELECT typeof(embedding) FROM {table} LIMIT 1").fetchone()
        return kind, connection.execute(f"SELECT id, embedding FROM {table}").fetchall()


def of_lancedb(place):
    import lancedb

    folder, table = place.rsplit("/", 1)
    found = lancedb.connect(folder).open_table(table)
    rows = found.to_arrow().to_pylist()
    nearest = found.search(rows[3]["embedding"]).limit(1).to_list()
    assert nearest[0]["id"] == rows[3]["id"]
    return str(found.schema.field("embedding").type), [(row["id"], row["embedding"]) for row in rows]


def of_qdrant(place):
    from qdrant_client import QdrantClient

    folder, collection = place.rsplit("/", 1)
    client = QdrantClient(path=folder)
    points, _ = client.scroll(collection, limit=10_000, with_vectors=True)
    assert all(point.id == point.payload["id"] for point in points)
    assert client.query_points(collection, query=points[3].vector, limit=1).points[0].id == points[3].id
    return str(client.get_collection(collection).config.params.vectors.size), [(p.id, p.vector) for p in points]


def of_postgresql(place):
    import psycopg

    address, table = place.split("#")
    with psycopg.connect(address) as connection:
        (kind,) = connection.execute(f"SELECT pg_typeof(embedding)::text FROM {table} LIMIT 1").fetchone()
        rows = connection.execute(f"SELECT id, embedding::real[] FROM {table} ORDER BY id").fetchall()
        if kind == "vector":
            nearest = f"SELECT id FROM {table} ORDER BY embedding <=> %s::real[]::vector LIMIT 1"
            assert connection.execute(nearest, [rows[3][1]]).fetchone() == (rows[3][0],)
    return kind, rows


store, place = sys.argv[1:]
kind, rows = globals()[f"of_{store}"](place)
print(json.dumps({"kind": kind, "rows": [[key, list(map(float, vector))] for key, vector in rows]}))
