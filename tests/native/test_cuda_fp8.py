"""The FP8 operators for CUDA on stand-ins that compute on the host, beside numpy with float8_e4m3fn of ml_dtypes."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import packed_attention as reference
import pytest
from cuda_stand_in.fp8 import E4M3, run
from cuda_stand_in.sessions import StandIn
from onnx import TensorProto

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++ on Linux"
)
Array = npt.NDArray[Any]
HALF = 1e-3  # of float16 results, as in test_cuda_operators.py


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.built(tmp_path_factory.mktemp("cuda"))


def fp8_products(stand_in: StandIn) -> int:
    """How many the stand-in for cuBLASLt computed; -1 of a card, which does not tell."""
    return int(stand_in.host.stand_in_fp8_products()) if isinstance(stand_in, StandIn) else -1


def e4m3(values: Array) -> Array:
    return np.clip(values, -448, 448).astype(E4M3)


def halves(random: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return (random.standard_normal(shape) * scale).astype(np.float16)


def close(found: Array, wanted: Array, share: float = 0.02) -> None:
    """E4m3 numbers that are those wanted, but for a share at the middle of two: another sum takes the other."""
    a, b = found.astype(np.float32), wanted.astype(np.float32)
    assert a.shape == b.shape
    assert np.mean(a != b) <= share
    assert (np.abs(a - b) <= np.maximum(np.abs(b), 2.0**-6) / 7.9).all()


def test_e4m3_of_the_stand_in_is_that_of_ml_dtypes(stand_in: StandIn) -> None:
    import ctypes

    to = stand_in.host.stand_in_to_e4m3
    to.argtypes, to.restype = [ctypes.c_float], ctypes.c_uint
    back = stand_in.host.stand_in_from_e4m3
    back.argtypes, back.restype = [ctypes.c_uint], ctypes.c_float
    every = np.arange(256, dtype=np.uint8).view(E4M3).astype(np.float32)
    np.testing.assert_array_equal([back(bits) for bits in range(256)], every)
    finite = np.sort(every[np.isfinite(every)])
    middles = (finite[1:] + finite[:-1]) / 2
    values = np.concatenate([finite, middles, np.nextafter(middles, 1e9), np.nextafter(middles, -1e9), [1e9, -449]])
    wanted = e4m3(values.astype(np.float32)).view(np.uint8)
    np.testing.assert_array_equal([to(value) for value in values], wanted)


@pytest.mark.parametrize("activation", ["", "gelu_tanh", "relu"])
@pytest.mark.parametrize("bias", [0, 1])
@pytest.mark.parametrize("narrow", [False, True])
def test_a_product_of_fp8_ends_in_its_bias_and_activation(
    stand_in: StandIn, activation: str, bias: int, narrow: bool
) -> None:
    random = np.random.default_rng(0)
    x, weight = e4m3(random.standard_normal((7, 64)) * 30), e4m3(random.standard_normal((32, 64)) * 100)
    given = {"x": x, "w": weight}
    scale = 3e-5
    if bias:
        given["bias"] = random.standard_normal(32).astype(np.float16)
    if narrow:
        given["out_scale"] = np.array([37.5], np.float32)
    attributes: dict[str, Any] = {"in_features": 64, "out_features": 32, "bias": bias, "scale": scale}
    if activation:
        attributes["activation"] = activation
    kind = TensorProto.FLOAT8E4M3FN if narrow else TensorProto.FLOAT16
    before = fp8_products(stand_in)
    (found,) = run(stand_in, "Fp8LinearFp8" if narrow else "Fp8Linear", given, [kind], **attributes)
    assert before < 0 or fp8_products(stand_in) > before
    wide = scale * x.astype(np.float32) @ weight.astype(np.float32).T
    wanted = reference.linear(wide, np.eye(32, dtype=np.float32), given.get("bias"), activation)
    if narrow:
        close(found, e4m3(wanted * 37.5))
    else:
        np.testing.assert_allclose(found.astype(np.float32), wanted, atol=HALF * np.abs(wanted).max())


def test_a_row_has_the_same_bits_in_any_number_of_rows(stand_in: StandIn) -> None:
    random = np.random.default_rng(0)
    x, weight = e4m3(random.standard_normal((1100, 256)) * 30), e4m3(random.standard_normal((16, 256)) * 100)
    options: dict[str, Any] = {"in_features": 256, "out_features": 16, "scale": 1e-4}
    whole = run(stand_in, "Fp8Linear", {"x": x, "w": weight}, [TensorProto.FLOAT16], **options)[0]
    for start, stop in ((0, 1), (3, 19), (100, 165)):
        part = run(stand_in, "Fp8Linear", {"x": x[start:stop], "w": weight}, [TensorProto.FLOAT16], **options)[0]
        assert part.tobytes() == whole[start:stop].tobytes()


@pytest.mark.parametrize("given", ["", "beta bias", "bias rms"])
@pytest.mark.parametrize(("width", "rows"), [(16, 1), (264, 9), (8192, 2)])
def test_a_normalization_writes_its_rows_twice(stand_in: StandIn, given: str, width: int, rows: int) -> None:
    random = np.random.default_rng(width)
    options = {name: int(name in given.split()) for name in ("beta", "bias", "rms")}
    inputs = {
        "x": halves(random, rows, width, scale=3),
        "skip": halves(random, rows, width),
        "gamma": halves(random, width),
    }
    inputs |= {name: halves(random, width) for name in ("beta", "bias") if options[name]}
    inputs |= {"weights": halves(random, width, scale=30), "shifts": halves(random, width, scale=20)}
    own = [inputs[name] for name in inputs if name not in ("x", "skip", "weights", "shifts")]
    kinds = [TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN]
    plain, narrow = run(stand_in, "Fp8AddNorm", inputs, kinds, width=width, epsilon=1e-5, **options)
    wanted = reference.add_norm(inputs["x"], inputs["skip"], own, epsilon=1e-5, **options)
    np.testing.assert_allclose(plain.astype(np.float32), wanted, atol=HALF * np.abs(wanted).max())
    without = {name: array for name, array in inputs.items() if name not in ("weights", "shifts")}
    (alone,) = run(stand_in, "AddNormFloat16", without, kinds[:1], width=width, epsilon=1e-5, **options)
    assert alone.tobytes() == plain.tobytes(), "the first result is that of the operator without FP8"
    x, skip = (inputs[name].astype(np.float32) for name in ("x", "skip"))
    parameters = [inputs["weights"], inputs["shifts"], *([inputs["bias"]] if options["bias"] else [])]
    again: dict[str, Any] = {**options, "beta": 1, "epsilon": 1e-5}
    wanted = reference.add_norm(x, skip, parameters, **again)
    close(narrow, e4m3(wanted))


@pytest.mark.parametrize("given", ["", "positions types beta"])
def test_embeddings_are_written_twice_too(stand_in: StandIn, given: str) -> None:
    random = np.random.default_rng(0)
    width, rows = 80, 13
    options = {name: int(name in given.split()) for name in ("positions", "types", "beta", "rms")}
    inputs: dict[str, Array] = {"ids": random.integers(0, 50, rows), "words": halves(random, 50, width)}
    for name, size in (("positions", 20), ("types", 2)):
        if options[name]:
            inputs |= {f"{name}.index": random.integers(0, size, rows), name: halves(random, size, width)}
    tables = [*inputs.values()][2:]
    own = {"gamma": halves(random, width)} | ({"beta": halves(random, width)} if options["beta"] else {})
    inputs |= own | {"weights": halves(random, width, scale=30), "shifts": halves(random, width, scale=20)}
    kinds = [TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN]
    plain, narrow = run(stand_in, "Fp8EmbedNorm", inputs, kinds, width=width, epsilon=1e-5, **options)
    wanted = reference.embed_norm(inputs["ids"], inputs["words"], [*tables, *own.values()], epsilon=1e-5, **options)
    np.testing.assert_allclose(plain.astype(np.float32), wanted.astype(np.float32), atol=4e-3)
    words = inputs["words"].astype(np.float32)
    again = [*tables, inputs["weights"], inputs["shifts"]]
    close(narrow, e4m3(reference.embed_norm(inputs["ids"], words, again, epsilon=1e-5, **{**options, "beta": 1})))


@pytest.mark.parametrize(("width", "rows"), [(8, 3), (1000, 5)])
def test_rows_are_scaled_and_rounded(stand_in: StandIn, width: int, rows: int) -> None:
    random = np.random.default_rng(0)
    x, weights, shifts = (random.standard_normal(shape).astype(np.float16) for shape in ((rows, width), width, width))
    weights *= 400  # some lie beyond 448
    inputs = {"x": x, "weights": weights, "shifts": shifts}
    (found,) = run(stand_in, "Fp8Quantize", inputs, [TensorProto.FLOAT8E4M3FN], width=width)
    wide = x.astype(np.float32) * weights.astype(np.float32) + shifts.astype(np.float32)
    close(found, e4m3(wide), share=0.0)
    assert np.abs(wide).max() > 448
    assert np.abs(found).max() == 448


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"in_features": 72}, "FP8 products have multiples of 16 inputs and outputs, not 72 and 32"),
        ({"scale": None}, "attribute scale is missing"),
        ({"scale": 0.0}, "attribute scale"),
        ({"bias": 1}, "the node has 2 inputs and describes 3"),
        ({"out_features": 48}, r"w is float8e4m3fn \(32, 64\) and has to be float8e4m3fn \(48, 64\)"),
    ],
)
def test_what_is_no_product_is_refused(stand_in: StandIn, changed: dict[str, Any], why: str) -> None:
    x, weight = e4m3(np.ones((2, 64))), e4m3(np.ones((32, 64)))
    attributes = {"in_features": 64, "out_features": 32, "scale": 1.0, **changed}
    attributes = {name: value for name, value in attributes.items() if value is not None}
    with pytest.raises(Exception, match=why) as caught:
        run(stand_in, "Fp8Linear", {"x": x, "w": weight}, [TensorProto.FLOAT16], **attributes)
    assert isinstance(caught.value, onnxruntime.capi.onnxruntime_pybind11_state.Fail) or "fastembed_rt" in str(caught)
