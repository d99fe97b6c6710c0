"""The vectors of a graph before it normalizes them: an output more, written behind the bytes of the model.

A graph that normalizes ends with x / max(|x|, epsilon), and x has a name in it. Protocol buffers read a message that
comes in two parts as one, so the second part alone says that x is an output: no part of the graph changes, nothing has
to be exported again, and this needs no package that writes models.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import LacksGraphError, ModelFormatError

GRAPH = 7  # of a model; the fields of onnx.proto3
NODE, OUTPUT = 1, 12  # of a graph
INPUTS, OUTPUTS, OP_TYPE = 1, 2, 4  # of a node
NAME = 1  # of an output
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # how a field's value is written
PASSED_ON = ("Identity", "Cast")
Node = tuple[str, list[str]]  # what it is, and its inputs


def with_unnormalized(content: bytes, output: str) -> tuple[bytes, str]:
    """A model whose vectors before the normalization are an output too, and the name of it.

    Args:
        content: of the model's file.
        output: name of the normalized vectors.

    Raises:
        LacksGraphError: it does not end with a normalization.
    """
    made_by: dict[str, Node] = {}
    for number, _, graph in _fields(memoryview(content)):
        if number == GRAPH:
            for field, _, node in _fields(graph):
                if field == NODE:
                    made_by.update(_node(node))
    name = output
    while name in made_by and made_by[name][0] in PASSED_ON:
        name = made_by[name][1][0]
    kind, inputs = made_by.get(name, ("", []))
    if kind != "Div" or len(inputs) != 2 or not _is_length(inputs[1], inputs[0], made_by):
        raise LacksGraphError(
            "the graph does not end with a normalization of its own kind; for vectors of any length export the "
            "checkpoint with: fastembed-rt export --no-normalize"
        )
    described = _field(OUTPUT, _field(NAME, inputs[0].encode()))
    return content + _field(GRAPH, described), inputs[0]


def _is_length(name: str, of: str, made_by: dict[str, Node]) -> bool:
    kind, inputs = made_by.get(name, ("", []))
    if kind in ("Max", "Clip"):
        return any(_is_length(entry, of, made_by) for entry in inputs[:2])
    return kind == "ReduceL2" and inputs[0] == of


def _node(content: memoryview) -> dict[str, Node]:
    """What a node is and its inputs, by the name of each of its outputs."""
    kind, inputs, outputs = "", [], []
    for number, _, value in _fields(content):
        if number == INPUTS:
            inputs.append(str(value, "utf-8"))
        elif number == OUTPUTS:
            outputs.append(str(value, "utf-8"))
        elif number == OP_TYPE:
            kind = str(value, "utf-8")
    return dict.fromkeys(outputs, (kind, inputs))


def _fields(content: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, kind and value of the fields of a message; numbers in varints are passed over."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            _, after = _varint(content, place)
            start = after
        elif kind == BYTES:
            size, start = _varint(content, place)
            after = start + size
        elif kind in (FIXED64, FIXED32):
            start, after = place, place + (8 if kind == FIXED64 else 4)
        else:
            raise ModelFormatError("the graph's file is no ONNX model; export it again")
        yield number, kind, content[start:after]
        place = after


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | BYTES]) + _written(len(value)) + value


def _written(size: int) -> bytes:
    parts = []
    while size > 0x7F:
        parts.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*parts, size])
