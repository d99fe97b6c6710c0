"""An ONNX graph under construction: nodes, named values, weights that are still in the checkpoint.

Knows ONNX, not transformers: operators come from the target, weights leave through writer.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from .weight import Array, Weight

Value = str  # the name of a tensor in the graph
INT32 = int(TensorProto.INT32)
INT64 = int(TensorProto.INT64)
FLOAT = int(TensorProto.FLOAT)
BOOL = int(TensorProto.BOOL)
FLOAT32: np.dtype[Any] = np.dtype(np.float32)


@dataclass
class Graph:
    """Nodes in topological order, with weights by name; small constants are stored once."""

    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    outputs: list[ValueInfoProto] = field(default_factory=list)
    _scopes: list[str] = field(default_factory=list)
    _taken: dict[str, int] = field(default_factory=dict)
    _spare: dict[Value, list[NodeProto]] = field(default_factory=dict)
    _float_type: np.dtype[Any] = FLOAT32

    @property
    def float_type(self) -> np.dtype[Any]:
        """What float weights and constants become; nothing changes it, `typed` gives a graph with another."""
        return self._float_type

    def typed(self, float_type: np.dtype[Any]) -> Graph:
        """The same graph under construction, whose float weights and constants become `float_type` when made here."""
        return self if float_type == self._float_type else replace(self, _float_type=float_type)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Name the values made inside `name/...`, so that a profile reads like the model."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> Value:
        """Declare a graph input; string dimensions are symbolic."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def needed(self, name: str, dtype: int, shape: Sequence[int | str]) -> Value:
        """A graph input, declared the first time that it is asked for."""
        return name if any(entry.name == name for entry in self.inputs) else self.input(name, dtype, shape)

    def output(self, value: Value, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Declare `value` a graph output under `name`."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def node(self, op: str, *inputs: Value, name: str = "", domain: str = "", **attributes: Any) -> Value:
        """Append a node with one output and return that output; "" leaves an optional input out."""
        return self.node_outputs(op, *inputs, count=1, name=name, domain=domain, **attributes)[0]

    def node_outputs(
        self, op: str, *inputs: Value, count: int, name: str = "", domain: str = "", **attributes: Any
    ) -> list[Value]:
        """Append a node with `count` outputs and return them."""
        for value in set(inputs) & set(self._spare):
            self.nodes += self._spare.pop(value)
        base = self._name(name or op)
        outputs = [base] if count == 1 else [f"{base}.{index}" for index in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=base, domain=domain, **attributes))
        return outputs

    def spare(self, value: Value, count: int) -> None:
        """Take out the last `count` nodes, which make `value` alone; whoever asks for it later has them back."""
        self._spare[value] = self.nodes[-count:]
        del self.nodes[-count:]

    def weight(self, weight: Weight) -> Value:
        """Weight as an initializer under its own name; the same name is the same tensor."""
        if self._float_type != weight.dtype == np.float32:
            weight = weight.cast(self._float_type)
        known = self.weights.setdefault(weight.name, weight)
        if known.shape != weight.shape:
            raise ValueError(f"two weights are called {weight.name}: {known.shape} and {weight.shape}")
        return weight.name

    def constant(self, array: Array | float | int | Sequence[int], dtype: npt.DTypeLike | None = None) -> Value:
        """Small constant as an initializer; ints become int64, floats `float_type`."""
        value = np.asarray(array)
        if dtype is None:
            dtype = np.int64 if value.dtype.kind == "i" else self._float_type
        value = np.ascontiguousarray(value, dtype=dtype).reshape(value.shape)
        key = f"const/{value.dtype}/{'x'.join(map(str, value.shape))}/{value.tobytes().hex()[:48]}"
        while key in self.constants and self.constants[key].raw_data != value.tobytes():
            key += "'"  # long constants may share their beginning
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(value, key)
        return key

    def ending_in(self, names: Sequence[Value], also: Sequence[Value] = ()) -> Graph:
        """The part of the graph that these outputs are made of: onnxruntime runs the whole, whatever is asked for.

        `also`: values that are not outputs and stay in it.
        """
        wanted, nodes = {*names, *also}, []
        for node in reversed(self.nodes):
            if wanted & set(node.output):
                nodes.append(node)
                wanted |= set(node.input)
        return Graph(
            self.opset,
            nodes[::-1],
            {name: weight for name, weight in self.weights.items() if name in wanted},
            {name: constant for name, constant in self.constants.items() if name in wanted},
            list(self.inputs),  # all are fed
            [entry for entry in self.outputs if entry.name in names],
        )

    def _name(self, leaf: str) -> str:
        base = "/".join([*self._scopes, leaf])
        count = self._taken.get(base, 0)
        self._taken[base] = count + 1
        return base if count == 0 else f"{base}#{count}"

    @property
    def weight_bytes(self) -> int:
        """Size of all weights in the file."""
        return sum(weight.nbytes for weight in self.weights.values())
