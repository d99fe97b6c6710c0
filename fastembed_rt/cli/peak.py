"""The most that this machine's products reach in onnxruntime, and how many of them a graph asks for.

The products of the probes are large and alone, so they run as fast as products can. Both graphs are here as bytes, and
a model's graph is read field by field, because the runtime has no onnx package.
"""

from __future__ import annotations

import base64
import math
import mmap
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 1024  # rows, and channels in and out
ROUNDS = 15
# y = x w, (SIZE, SIZE) each; w is a ConstantOfShape, which onnxruntime folds and packs at load as it does weights.
# MatMul in float32 and MatMulIntegerToFloat of uint8 and int8, scales 1; test_bench.py makes them again.
PROBES = {
    "fp32": (
        "c-rIOu$s)srO(A!EW}u@#P6J+S6q^qSK^-*oRL_NswKw7T9%konySUc!6?A!#lpbQV84Kog-ei&v4V@ST!^t!iOn~$#J4m@h@~Jk"
        "F<VQLgGqqhiLuyAfB~o&44`zBC{T}(02dzzqYxJtGe-jlm`DN&S7Hh~v2Za62s#OJ@h0cz>g8r87v&e{r<DjW0syvxA5s"
    ),
    "int8": (
        "c-mEs!3u&v7=-=PaQUO!wmNk6DAB2tm%t!MkPda~w#izNx}t05%}41`dbGqk)G*92-(?7KUVw9ioIz;~*D}c!Pt-2lUwA6)F?R1f"
        "Duitkpt=X}1Ot}{4}=ndH)c>-6Q3);h_;CmXOSJ`CX!q^{XoWx_!?v~m!V=tD)`Nwkq$Lo$UUkV+DG5EdlX#YUNh^}aoT(^iUZPN"
        "h&riB8>a?WErwt08mQ5cJHr1<3U6R_EXe"
    ),
}
INPUTS = {"fp32": np.float32, "int8": np.uint8}
PRODUCTS = (b"Gemm", b"MatMul", b"MatMulIntegerToFloat")  # weights are input 1
OWN_PRODUCTS = (b"QuantLinear", b"QuantFeedForward", b"QuantAttention")  # weights are all inputs of int8

# Field numbers in onnx.proto.
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OPERATOR = 1, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME = 1, 2, 8
INT8 = 3  # a TENSOR_TYPE


def gemm_peak(onnxruntime: Any, precision: str, threads: int) -> float | None:
    """Operations a second (2 for a multiply and an add) of one large product; None without a probe for it."""
    if precision not in PROBES:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    graph = zlib.decompress(base64.b85decode(PROBES[precision]))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((SIZE, SIZE), INPUTS[precision])}
    samples = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        session.run(["y"], feeds)
        samples.append(time.perf_counter() - start)
    return 2 * SIZE**3 / min(samples)  # the others were disturbed


def products(path: Path) -> int:
    """Multiplications by weights for one token in an ONNX file: the sizes of its linear layers' matrices."""
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        return sum(_products(graph) for number, graph in _fields(view) if number == MODEL_GRAPH)


def _products(graph: Any) -> int:
    sizes: dict[bytes, int] = {}
    integers: set[bytes] = set()
    weights: list[bytes] = []
    own: list[bytes] = []
    for number, value in _fields(graph):
        if number == GRAPH_INITIALIZER:
            tensor = list(_fields(value))
            dims = [dim for key, field in tensor if key == TENSOR_DIMS for dim in _numbers(field)]
            name = _bytes(tensor, TENSOR_NAME)[0]
            sizes[name] = math.prod(dims)
            if (TENSOR_TYPE, INT8) in tensor:
                integers.add(name)
        elif number == GRAPH_NODE:
            node = list(_fields(value))
            operator = _bytes(node, NODE_OPERATOR)[0]
            if operator in PRODUCTS:
                weights.append(_bytes(node, NODE_INPUT)[1])
            elif operator in OWN_PRODUCTS:
                own += _bytes(node, NODE_INPUT)
    return sum(sizes.get(name, 0) for name in weights) + sum(sizes[name] for name in own if name in integers)


def _bytes(fields: list[tuple[int, Any]], wanted: int) -> list[bytes]:
    return [bytes(value) for number, value in fields if number == wanted] or [b""]


def _numbers(field: Any) -> list[int]:
    """A repeated integer's field: one number, or all of them packed into bytes."""
    if isinstance(field, int):
        return [field]
    numbers, place = [], 0
    while place < len(field):
        number, place = _varint(field, place)
        numbers.append(number)
    return numbers


def _fields(message: Any) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: an int, or a view of its bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 0:
            value, place = _varint(message, place)
        else:
            length, place = _varint(message, place) if kind == 2 else ({1: 8, 5: 4}[kind], place)
            value, place = message[place : place + length], place + length
        yield key >> 3, value


def _varint(message: Any, place: int) -> tuple[int, int]:
    """A number in steps of seven bits, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
