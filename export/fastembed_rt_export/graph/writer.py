"""Graph -> .onnx file, one weight at a time.

Serializing a ModelProto the usual way holds the weights three times (arrays, protobuf, bytes). Here the protobuf
envelope is written by hand around weights that are read, written and forgotten one by one: the wire format of a message
is its fields one after the other, and a length-delimited field is its tag, its length and its bytes
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper

from .common import Common, Place, digest_of, digests_of
from .graph import Graph
from .weight import Weight

# A protobuf message ends at 2 GiB; the margin is for the nodes.
PROTOBUF_LIMIT = 2**31 - 2**24
# Field numbers of onnx.proto.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_RAW_DATA = 7, 5, 9
# IR versions by opset, so that an older runtime which knows the opset also reads the file.
_IR_BY_OPSET = ((23, 11), (21, 10), (20, 9), (15, 8))


@dataclass(frozen=True)
class Written:
    """What a graph became on disk."""

    graph: str
    weights: tuple[str, ...]  # external data files
    offsets: Mapping[str, Place]  # weight -> file, offset, length in bytes


def write(
    graph: Graph,
    directory: Path,
    file: str,
    *,
    name: str,
    metadata: Mapping[str, str],
    external: bool = False,
    shared: Mapping[str, Place] | None = None,
    common: Common | None = None,
    checked: bool = True,
) -> Written:
    """Write `graph` as `directory/file`, checked by onnx.checker before any weight is written.

    Args:
        graph: what to write.
        directory: where to.
        file: name of the .onnx file.
        name: the graph's name inside the file.
        metadata: metadata_props of the model.
        external: put weights into `file`.data also when they would fit; beyond 2 GiB they always go there.
        shared: weights that lie in another file of the directory already, as an earlier `Written.offsets` says; they
            are referred to there, not written again.
        common: what the directory's graphs have been written to before and this one may have in common with them. A
            graph that is among them is not written again, and `Written` is about that one.
        checked: False for a part of a graph, whose inputs have no known shape.
    """
    shared = {key: place for key, place in (shared or {}).items() if key in graph.weights}
    if common is not None:
        digests = digests_of(graph.weights)
        skeleton, _ = _skeleton(graph, name, metadata, "", {})
        digest = digest_of(graph, skeleton.SerializeToString(deterministic=True), digests)
        found = common.graph(digest)
        if found is None:
            shared = common.places(graph.weights, digests) | shared
            found = _written(graph, directory, file, name, metadata, external, shared, checked)
            common.add(digest, found, digests)
        return found
    return _written(graph, directory, file, name, metadata, external, shared, checked)


def _written(
    graph: Graph,
    directory: Path,
    file: str,
    name: str,
    metadata: Mapping[str, str],
    external: bool,
    shared: Mapping[str, Place],
    checked: bool,
) -> Written:
    own = sum(weight.nbytes for key, weight in graph.weights.items() if key not in shared)
    external = (external and own > 0) or own > PROTOBUF_LIMIT  # where all are shared, there is nothing to lie beside it
    weights_file = f"{file}.data" if external else ""
    offsets: dict[str, tuple[str, int, int]] = {}
    model, references = _skeleton(graph, name, metadata, weights_file or file, shared)
    if checked:
        check(model, references)
    elsewhere = [tensor for tensor in references if tensor.name in shared]
    references = [tensor for tensor in references if tensor.name not in shared]
    model.graph.initializer.extend(elsewhere)
    others = tuple(sorted({place[0] for place in shared.values()}))
    if external:
        with (directory / weights_file).open("wb") as stream:
            for tensor in references:
                entries = {entry.key: entry.value for entry in tensor.external_data}
                stream.seek(int(entries["offset"]))
                data = graph.weights[tensor.name].contents()
                offsets[tensor.name] = (weights_file, stream.tell(), len(data))
                stream.write(data)
        model.graph.initializer.extend(references)
        (directory / file).write_bytes(model.SerializeToString())
        return Written(file, (*others, weights_file), offsets)

    (directory / f"{file}.data").unlink(missing_ok=True)  # of a graph that was here before
    body = model.graph.SerializeToString()
    model.ClearField("graph")
    envelope = model.SerializeToString()
    sizes = {tensor.name: _tensor_size(tensor, graph.weights[tensor.name]) for tensor in references}
    total = len(body) + sum(len(_field(_GRAPH_INITIALIZER, size)) + size for size in sizes.values())
    with (directory / file).open("wb") as stream:
        stream.write(envelope)
        stream.write(_field(_MODEL_GRAPH, total))
        stream.write(body)
        for tensor in references:
            data = graph.weights[tensor.name].contents()
            stream.write(_field(_GRAPH_INITIALIZER, sizes[tensor.name]))
            stream.write(_tensor_head(tensor))
            stream.write(_field(_TENSOR_RAW_DATA, len(data)))
            offsets[tensor.name] = (file, stream.tell(), len(data))
            stream.write(data)
    return Written(file, others, offsets)


def check(model: ModelProto, references: list[TensorProto]) -> None:
    """Run onnx.checker and strict shape inference with the weights declared as inputs: no weight is read."""
    whole = ModelProto()
    whole.CopyFrom(model)
    whole.graph.input.extend(helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in references)
    onnx.checker.check_model(whole)
    if all(node.domain in ("", "ai.onnx") for node in model.graph.node):
        onnx.shape_inference.infer_shapes(whole, check_type=True, strict_mode=True, data_prop=True)


def _skeleton(
    graph: Graph,
    name: str,
    metadata: Mapping[str, str],
    location: str,
    shared: Mapping[str, Place],
) -> tuple[ModelProto, list[TensorProto]]:
    """The model without its weights, and the weights as references into `location`."""
    proto = GraphProto(name=name, node=graph.nodes, input=graph.inputs, output=graph.outputs)
    proto.initializer.extend(graph.constants.values())
    domains = sorted({node.domain for node in graph.nodes if node.domain})
    model = helper.make_model(
        proto,
        opset_imports=[helper.make_opsetid("", graph.opset), *(helper.make_opsetid(d, 1) for d in domains)],
        producer_name="fastembed-rt",
    )
    model.ir_version = next((ir for opset, ir in _IR_BY_OPSET if graph.opset >= opset), 8)
    helper.set_model_props(model, dict(metadata))
    return model, list(_references(graph, location, shared))


def _references(graph: Graph, location: str, shared: Mapping[str, Place]) -> Iterator[TensorProto]:
    offset = 0
    for weight in graph.weights.values():
        length = weight.nbytes
        dtype = helper.np_dtype_to_tensor_dtype(weight.dtype)
        tensor = TensorProto(name=weight.name, data_type=dtype, dims=weight.shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = shared.get(weight.name, (location, offset, length))
        if place[2] != length:
            raise ValueError(f"{weight.name} has {length} bytes, the shared one {place[2]}")
        for key, value in zip(("location", "offset", "length"), place, strict=True):
            tensor.external_data.add(key=key, value=str(value))
        yield tensor
        if weight.name in shared:
            continue
        offset += -(-length // 4096) * 4096  # page-aligned, so that a runtime can map it


def _tensor_head(tensor: TensorProto) -> bytes:
    """A TensorProto but for its data."""
    head: bytes = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims).SerializeToString()
    return head


def _tensor_size(tensor: TensorProto, weight: Weight) -> int:
    length = weight.nbytes
    return len(_tensor_head(tensor)) + len(_field(_TENSOR_RAW_DATA, length)) + length


def _field(number: int, length: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
