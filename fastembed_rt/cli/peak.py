"""The most that this machine's products reach, in onnxruntime's operators or ours, and how many a graph asks for.

The products of the probes are large and alone, so they run as fast as products can. Their graphs are here as bytes, and
a model's graph is read field by field, because the runtime has no onnx package.
"""

from __future__ import annotations

import base64
import itertools
import math
import mmap
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .. import native
from ..system.paths import as_utf8

SIZE = 1024  # rows, and channels in and out
ROUNDS = 15
# y = x w by each operator, (SIZE, SIZE) each; w is a ConstantOfShape, which onnxruntime folds and packs at load as it
# does weights; those in bfloat16 are cast. All scales are 1. test_bench.py makes the graphs again.
PROBES = {
    "MatMul": (
        "c-rIOw3^DuWx&N$UM$2|uEg)0pI2Oxm{;PT7Mzh-kg6rd#afn_Q<|#9#la}R=*7ao&|trSk%dc;i?M=>v0R9;Qi;tsvBbADM~I~$H8ER"
        "Dii1gj-3e%%mjDA$H5fqYC{ds$AptHv4n`p^E@qAf4lt1f6t2V+c4FaT5D)|a8YCKt"
    ),
    "MatMulIntegerToFloat": (
        "c-rIOv^vDdrOU-sUM$2|uEg)0pI2Oxm{;PT7Mzh-kg6rj#afn_Q<|#9&cP_a?8V5qfRTmEgp09)i?N)GF%gJ_7%P=Td=pE2OLIK)N>bB"
        "Pi$e0<a`F>Ptay|2bM<mFlZ*0;^V3R%SPD`Tv$do+m;~6JfYx~lFt9K{0F>6^7GQK@O!NYB8|<S*ftCmfaPe_432|{Tb2M;(i6o$KC0L"
        "jdS=fn%i$OrpNstTGP60*$8S5>+"
    ),
    "Fp32Linear": (
        "c-rIOv}$AGGT>q=FBW1fSK@ch&nqrT%q#Iv3(iO^NYxVKVl7L|DNWVl;$ReD^kQLPXs}<v$O6)l1k{m4ybc>K#tJURaxTUsA;wB2F1G?>B"
        "cIH?)Wjk!5iZ^wFe^SMu`;!&Sb}i@Ba;<RT4HfYYHm_$N_<g?5KBR7Vz!nP2a^E16VR<*0t`Td!2n8Y2?4DG$|V(halpi)M1gh+32^aoFbZ*"
        "TF>^F<fQclaa3!X&6AKrEfS{8A7mCdSi~w!FJ3j"
    ),
    "Bf16Linear": (
        "c-oDRJxc>Y5QcBgm26)8SQkHn<&|4$V-bYFr8@!^b~a%bcTqeq;dV7%mw#e@YKB9LkS0^i4DZ16FmgEl&2fi3L`|VMpDvo1Y?GeC^P63IbB*"
        "I~TYq^2Ns20wW$Vd?1a3e<)2a|t8<QC#Pm7V-P>*tqa)+ZHK|i1s$Z6^dl;Qqi_TG5gnoFG4{Wh;{=i4|UHjGaKEB&YQuk$u(vGn%C+{#=HN`"
        "9hJ8H4-!n?|#aZ!T8yKYO`ir&c(Vq=6&3mVI*^cl&WEkg1DOVaKd!3ouMS(*"
    ),
    "QuantLinear": (
        "c-m!;!A`<J5QaNT4eNlqEMf>pj+>Bp=3-KAjR`T{xR61IXe@<vi?yEmC_aP_$WY6{u-WWv{`qF+AALFfRX9Oacnih&X0}azPH8@0Kflq"
        "AT^}z#DcQ4YYcQ=C;0HpyM@53uIevG-QE-UEAgCUW6&r*vgaU!&S}4bzr@fRtzNbu?yTz-d{w)(KIrBrAqNG>1QT+=gJoxJcVyV;U-<)"
        "lS)e)X{*W`2FtoU`A<u=?geYlZUrX9&<u?fUUeVXX3_>&y@Sf8}TKulVL*BUHhOINynRw9?@aui}<dXd3@lMNgI3cN`J"
    ),
}
# The operators that multiply in a precision; the fastest is the peak.
OPERATORS = {
    "fp32": ("MatMul", "Fp32Linear"),
    "bf16": ("Bf16Linear",),
    "int8": ("MatMulIntegerToFloat", "QuantLinear"),
}
OWN = ("Fp32Linear", "Bf16Linear", "QuantLinear")
PRODUCTS = (b"Gemm", b"MatMul", b"MatMulIntegerToFloat")  # weights are input 1
# Weights are all inputs of int8 or bfloat16, and of float those that a bias follows.
OWN_PRODUCTS = tuple(
    kind + what for kind in (b"Quant", b"Bf16", b"Fp32") for what in (b"Linear", b"FeedForward", b"Attention")
)

# Field numbers in onnx.proto.
MODEL_GRAPH = 7
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_INPUT, NODE_OPERATOR = 1, 4
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME = 1, 2, 8
NARROW = (3, 16)  # of TENSOR_TYPE: int8, bfloat16


def gemm_peak(onnxruntime: Any, precision: str, threads: int, rounds: int = ROUNDS) -> float | None:
    """Operations a second (2 for a multiply and an add) of one large product; None without a probe for it.

    Of several operators that multiply in this precision, ours among them where they run, it is the fastest one's.
    """
    rates = [
        2 * SIZE**3 / _seconds(onnxruntime, operator, threads, rounds)
        for operator in OPERATORS.get(precision, ())
        if operator not in OWN or native.kernels() is not None
    ]
    return max(rates, default=None)


def _seconds(onnxruntime: Any, operator: str, threads: int, rounds: int) -> float:
    """Least time of a product: the other times were disturbed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if operator in OWN:
        options.register_custom_ops_library(as_utf8(native.library()))
    graph = zlib.decompress(base64.b85decode(PROBES[operator]))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.ones((SIZE, SIZE), np.uint8 if operator == "MatMulIntegerToFloat" else np.float32)}
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        session.run(["y"], feeds)
        samples.append(time.perf_counter() - start)
    return min(samples)


def products(path: Path) -> int:
    """Multiplications by weights for one token in an ONNX file: the sizes of its linear layers' matrices."""
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as view,
    ):
        return sum(_products(graph) for number, graph in _fields(view) if number == MODEL_GRAPH)


def _products(graph: Any) -> int:
    shapes: dict[bytes, list[int]] = {}
    narrow: set[bytes] = set()
    weights: list[bytes] = []
    own: list[tuple[bytes, bytes]] = []  # an input and the one behind it
    for number, value in _fields(graph):
        if number == GRAPH_INITIALIZER:
            tensor = list(_fields(value))
            dims = [dim for key, field in tensor if key == TENSOR_DIMS for dim in _numbers(field)]
            name = _bytes(tensor, TENSOR_NAME)[0]
            shapes[name] = dims
            if any((TENSOR_TYPE, kind) in tensor for kind in NARROW):
                narrow.add(name)
        elif number == GRAPH_NODE:
            node = list(_fields(value))
            operator = _bytes(node, NODE_OPERATOR)[0]
            if operator in PRODUCTS:
                weights.append(_bytes(node, NODE_INPUT)[1])
            elif operator in OWN_PRODUCTS:
                own += itertools.pairwise(_bytes(node, NODE_INPUT))
    weights += [
        name
        for name, behind in own
        if name in narrow or (len(shapes.get(name, ())) == 2 and shapes.get(behind) == shapes[name][1:])
    ]
    return sum(math.prod(shapes[name]) for name in weights if name in shapes)


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
