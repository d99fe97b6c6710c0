"""Nodes of our own operators (fastembed_rt/native): inputs and attributes as native/src/operators.c has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from fastembed_rt.native import DOMAIN

from .graph import FLOAT32, Graph, Value
from .layers import Attention, Residual
from .weight import Array, Linear, Norm, Weight


class OwnNode:
    """An operator under construction: inputs and attributes in the order of fastembed_rt/native/src/operators.c."""

    def __init__(self, graph: Graph, op: str, inputs: list[Value], attributes: dict[str, Any]) -> None:
        self.graph, self.op, self.inputs, self.attributes = graph, op, inputs, attributes

    def norm(self, prefix: str, norm: Norm | None) -> None:
        """A normalization, if there is one, whose attributes' names begin with `prefix`."""
        if norm is None:
            return
        self.inputs.append(self.graph.weight(norm.weight))
        self.attributes |= {f"{prefix}norm": 1, f"{prefix}epsilon": norm.epsilon, f"{prefix}rms": int(norm.rms)}
        if norm.bias is not None:
            self.attributes[f"{prefix}norm_bias"] = 1
            self.inputs.append(self.graph.weight(norm.bias))

    def head_norms(self, attention: Attention) -> None:
        """Those of queries, keys and values."""
        self.norm("query_", attention.query_norm)
        self.norm("key_", attention.key_norm)
        self.norm("value_", attention.value_norm)

    def finish(self, then: Residual | None = None) -> Value:
        """Append the node."""
        if then is not None:
            self.inputs.append(then.states)
            self.attributes["residual"] = 1
            self.norm("", then.norm)
            if then.norm_first:
                self.attributes["norm_first"] = 1
        return self.graph.node(self.op, *self.inputs, domain=DOMAIN, name=self.op, **self.attributes)


@dataclass(frozen=True)
class Kind:
    """Operators of a type of weights."""

    prefix: str  # of their names
    dtype: np.dtype[Any]


KINDS = {"bf16": Kind("Bf16", np.dtype(ml_dtypes.bfloat16)), "fp32": Kind("Fp32", FLOAT32)}


class FloatNode(OwnNode):
    """An operator with groups of layers of one kind."""

    def __init__(self, kind: Kind, graph: Graph, op: str, inputs: list[Value], attributes: dict[str, Any]) -> None:
        super().__init__(graph, f"{kind.prefix}{op}", inputs, attributes)
        self._kind = kind

    def group(self, prefix: str, layers: Sequence[Linear]) -> None:
        """Layers that share an input."""
        self.attributes[f"{prefix}_layers"] = len(layers)
        for layer in layers:
            weight = layer.weight.transposed
            if self._kind.dtype != FLOAT32:
                weight = weight.cast(self._kind.dtype)
            bias = layer.bias or zeros(f"{layer.weight.name}.no_bias", layer.out_features)
            self.inputs += [self.graph.weight(one) for one in (weight, bias)]


def float_linear(
    graph: Graph, inputs: Sequence[Value], layer: Linear, kind: Kind = KINDS["fp32"], **attributes: int
) -> Value:
    """A layer whose rows do not depend on one another, to the bit. `inputs`: states, and what `attributes` ask for."""
    node = FloatNode(kind, graph, "Linear", list(inputs), {**attributes})
    node.group("linear", [layer])
    return node.finish()


def zeros(name: str, width: int) -> Weight:
    """The bias of a layer that has none."""
    return Weight(name, (width,), _nothing(width))


def _nothing(width: int) -> Callable[[], Array]:
    return lambda: np.zeros(width, np.float32)
