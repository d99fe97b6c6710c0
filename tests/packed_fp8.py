"""The FP8 operators of cuda graphs in numpy, for the ONNX reference evaluator; see packed_attention.py.

Written from the head of cuda_operators.c, with ml_dtypes' float8_e4m3fn: not from the graphs.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx.reference.op_run import OpRun
from packed_attention import add_norm, embed_norm, linear

Array = npt.NDArray[Any]
E4M3: np.dtype[Any] = np.dtype(ml_dtypes.float8_e4m3fn)
DOMAIN = "fastembed_rt.cuda"


def e4m3(values: Array) -> Array:
    """The nearest, ties to even; 448 for what is beyond it."""
    made: Array = np.clip(values, -448, 448).astype(E4M3)
    return made


def _product(x: Array, weight: Array, bias: Array | None, scale: float, activation: str | None) -> Array:
    """In float32."""
    assert x.dtype == weight.dtype == E4M3
    wide = scale * (x.astype(np.float32) @ weight.astype(np.float32).T)
    if bias is not None:
        wide = wide + bias.astype(np.float32)
    return linear(wide, np.eye(len(weight), dtype=np.float32), None, activation)


class Fp8Linear(OpRun):  # type: ignore[misc]
    op_domain = DOMAIN

    def _run(
        self,
        x: Array,
        weight: Array,
        given: Array | None = None,
        in_features: int | None = None,
        out_features: int | None = None,
        bias: int | None = None,
        scale: float = 0.0,
        activation: str | None = None,
    ) -> tuple[Array]:
        assert (x.shape[1], weight.shape) == (in_features, (out_features, in_features))
        assert bool(bias) == (given is not None)
        return (_product(x, weight, given, scale, activation).astype(np.float16),)


class Fp8LinearFp8(OpRun):  # type: ignore[misc]
    op_domain = DOMAIN

    def _run(
        self,
        x: Array,
        weight: Array,
        *given: Array,
        in_features: int | None = None,
        out_features: int | None = None,
        bias: int | None = None,
        scale: float = 0.0,
        activation: str | None = None,
    ) -> tuple[Array]:
        *own, out_scale = given
        assert (x.shape[1], weight.shape, len(own)) == (in_features, (out_features, in_features), bias or 0)
        assert out_scale.dtype == np.float32
        return (e4m3(_product(x, weight, own[0] if own else None, scale, activation) * out_scale),)


class Fp8AddNorm(OpRun):  # type: ignore[misc]
    op_domain = DOMAIN

    def _run(self, x: Array, skip: Array, *given: Array, width: int = 0, **options: Any) -> tuple[Array, Array]:
        *own, weights, shifts = given
        assert x.shape[1] == width == len(weights) == len(shifts)
        again = [weights, shifts, *([own[-1]] if options.get("bias") else [])]
        wide = add_norm(x.astype(np.float32), skip.astype(np.float32), again, **{**options, "beta": 1})
        return add_norm(x, skip, own, **options), e4m3(wide)


class Fp8EmbedNorm(OpRun):  # type: ignore[misc]
    op_domain = DOMAIN

    def _run(self, ids: Array, words: Array, *given: Array, width: int = 0, **options: Any) -> tuple[Array, Array]:
        *own, weights, shifts = given
        assert words.shape[1] == width == len(weights) == len(shifts)
        tables = own[: len(own) - 1 - (options.get("beta") or 0)]
        wide = words.astype(np.float32)
        narrow = embed_norm(ids, wide, [*tables, weights, shifts], **{**options, "beta": 1})
        return embed_norm(ids, words, own, **options), e4m3(narrow)


class Fp8Quantize(OpRun):  # type: ignore[misc]
    op_domain = DOMAIN

    def _run(self, x: Array, weights: Array, shifts: Array, width: int = 0) -> tuple[Array]:
        assert x.shape[1] == width
        return (e4m3(x.astype(np.float32) * weights.astype(np.float32) + shifts.astype(np.float32)),)


OPERATORS = [Fp8Linear, Fp8LinearFp8, Fp8AddNorm, Fp8EmbedNorm, Fp8Quantize]
