"""A stand-in for a Weaviate server: schema and single objects by REST, batches and searches by gRPC.

It speaks what the protobufs of weaviate-client say, keeps objects in memory and compares all their vectors with a
query's by the cosine. What it cannot tell is how a server itself would take what it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from stand_in import standing_in
from weaviate.proto.v1 import (
    base_pb2,
    batch_pb2,
    health_weaviate_pb2,
    properties_pb2,
    search_get_pb2,
    weaviate_pb2_grpc,
)

VERSION = "1.34.0"


@dataclass
class Weaviate(weaviate_pb2_grpc.WeaviateServicer):  # type: ignore[misc]  # which has no types
    """Objects of each collection by their id: (properties, vector)."""

    port: int = 0
    grpc_port: int = 0
    schema: dict[str, Any] = field(default_factory=dict)
    objects: dict[str, dict[str, tuple[dict[str, Any], Any]]] = field(default_factory=dict)
    batches: list[int] = field(default_factory=list)  # objects of each
    queries: list[Any] = field(default_factory=list)  # vectors

    def by_rest(self, method: str, path: str, body: Any) -> Any:
        """What REST answers; None is 404."""
        if path == "/v1/meta":
            return {"hostname": "http://[::]:8080", "modules": {}, "version": VERSION}
        if (method, path) == ("GET", "/v1/schema"):
            return {"classes": [*self.schema.values()]}
        if (method, path) == ("POST", "/v1/schema"):
            self.schema[body["class"]] = body
            return body
        if (method, path) == ("POST", "/v1/objects"):
            vector = body.get("vector") or body["vectors"]["default"]
            self._keep(body["class"], body["id"], body["properties"], np.array(vector, np.float32))
            return body
        return None

    def BatchObjects(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        """Keep a batch."""
        self.batches.append(len(request.objects))
        for one in request.objects:
            properties = dict(one.properties.non_ref_properties.items())
            (vectors,) = {one.vector_bytes, *(vector.vector_bytes for vector in one.vectors)} - {b""}
            self._keep(one.collection, one.uuid, properties, np.frombuffer(vectors, "<f4"))
        return batch_pb2.BatchObjectsReply()

    def Search(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The nearest objects, all of them compared."""
        (asked,) = request.near_vector.vectors
        assert asked.type == base_pb2.Vectors.VECTOR_TYPE_SINGLE_FP32
        query = np.frombuffer(asked.vector_bytes, "<f4")
        self.queries.append(query)
        known = self.objects.get(request.collection, {})
        distances = {name: _distance(vector, query) for name, (_, vector) in known.items()}
        best = sorted(distances, key=distances.__getitem__)[: request.limit]
        return search_get_pb2.SearchReply(
            results=[self._found(request, name, *known[name], distances[name]) for name in best]
        )

    def _keep(self, collection: str, name: str, properties: dict[str, Any], vector: Any) -> None:
        assert collection in self.schema, f"there is no collection {collection}"
        self.objects.setdefault(collection, {})[name] = (properties, vector)

    @staticmethod
    def _found(request: Any, name: str, properties: dict[str, Any], vector: Any, distance: float) -> Any:
        values = {key: properties_pb2.Value(text_value=value) for key, value in properties.items()}
        metadata: dict[str, Any] = {"id": name}
        if request.metadata.distance:
            metadata |= {"distance": distance, "distance_present": True}
        if request.metadata.vector:
            metadata["vector_bytes"] = vector.tobytes()
        return search_get_pb2.SearchResult(
            properties=search_get_pb2.PropertiesResult(
                non_ref_props=properties_pb2.Properties(fields=values), target_collection=request.collection
            ),
            metadata=search_get_pb2.MetadataResult(**metadata),
        )


def _distance(vector: Any, query: Any) -> float:
    return 1 - float(vector @ query) / float(np.linalg.norm(vector) * np.linalg.norm(query))


def _healthy(request: Any, context: Any) -> Any:
    kind = health_weaviate_pb2.WeaviateHealthCheckResponse
    return kind(status=kind.SERVING)


@contextmanager
def weaviate_server() -> Iterator[Weaviate]:
    """The stand-in on two free ports of loopback."""
    made = Weaviate()
    health = grpc.unary_unary_rpc_method_handler(
        _healthy,
        request_deserializer=health_weaviate_pb2.WeaviateHealthCheckRequest.FromString,
        response_serializer=health_weaviate_pb2.WeaviateHealthCheckResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    weaviate_pb2_grpc.add_WeaviateServicer_to_server(made, server)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": health}),))
    made.grpc_port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with standing_in(made.by_rest) as (made.port, _):
            yield made
    finally:
        server.stop(None).wait()
