"""Activations of Dense modules: torch.nn's classes with their default arguments, in standard ONNX operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..graph.graph import Graph, Value
from ..graph.ops import Ops

Function = Callable[[Graph, Value], Value]
# Under the name that transformers' ACT2FN has for it, which targets build in their own ways.
NAMED = {
    "Identity": "linear",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
# In evaluation RReLU has the middle of its slopes, 1/8 and 1/3.
_RRELU = (1 / 8 + 1 / 3) / 2
OVER_VECTOR = ("Softmax", "Softmin", "LogSoftmax")  # torch takes another axis for token states than for vectors
NOT_ZERO_AT_ZERO = ("Sigmoid", "Softplus", "LogSigmoid", "Hardsigmoid", *OVER_VECTOR)
WITH_WEIGHTS = ("PReLU", "MultiheadAttention")


def _one(op: str, **attributes: Any) -> Function:
    return lambda graph, x: graph.node(op, x, name=op.lower(), **attributes)


def _clip(low: float, high: float) -> Function:
    return lambda graph, x: graph.node("Clip", x, graph.constant(low), graph.constant(high), name="clip")


def _negated(function: Function) -> Function:
    return lambda graph, x: function(graph, graph.node("Neg", x, name="negated"))


def _times(function: Function) -> Function:
    return lambda graph, x: graph.node("Mul", x, function(graph, x), name="times")


def _less(function: Function) -> Function:
    return lambda graph, x: graph.node("Sub", x, function(graph, x), name="less")


def _mish(graph: Graph, x: Value) -> Value:
    """x * tanh(softplus(x))."""
    return _times(lambda g, v: g.node("Tanh", g.node("Softplus", v, name="softplus"), name="tanh"))(graph, x)


def _log_sigmoid(graph: Graph, x: Value) -> Value:
    """-softplus(-x)."""
    return graph.node("Neg", _negated(_one("Softplus"))(graph, x), name="logsigmoid")


def _hard_shrink(graph: Graph, x: Value) -> Value:
    """x where it is farther from zero than 0.5, else 0."""
    far = graph.node("Greater", graph.node("Abs", x, name="abs"), graph.constant(0.5), name="far")
    return graph.node("Where", far, x, graph.constant(0.0), name="hardshrink")


BUILT: dict[str, Function] = {
    "LeakyReLU": _one("LeakyRelu", alpha=0.01),
    "RReLU": _one("LeakyRelu", alpha=_RRELU),
    "ELU": _one("Elu", alpha=1.0),
    "CELU": _one("Elu", alpha=1.0),  # the same where alpha is 1
    "SELU": _one("Selu"),
    "Mish": _mish,
    "Softplus": _one("Softplus"),
    "Softsign": _one("Softsign"),
    "LogSigmoid": _log_sigmoid,
    "ReLU6": _clip(0.0, 6.0),
    "Hardtanh": _clip(-1.0, 1.0),
    "Hardsigmoid": _one("HardSigmoid", alpha=1 / 6, beta=0.5),
    "Hardswish": _times(_one("HardSigmoid", alpha=1 / 6, beta=0.5)),
    "Hardshrink": _hard_shrink,
    "Softshrink": _less(_clip(-0.5, 0.5)),
    "Tanhshrink": _less(_one("Tanh")),
    "Softmax": _one("Softmax", axis=-1),
    "Softmin": _negated(_one("Softmax", axis=-1)),
    "LogSoftmax": _one("LogSoftmax", axis=-1),
}
KNOWN = (*NAMED, *BUILT)


def activate(ops: Ops, states: Value, name: str) -> Value:
    """The activation of torch.nn's class `name`."""
    return BUILT[name](ops.graph, states) if name in BUILT else ops.activation(states, NAMED[name])
