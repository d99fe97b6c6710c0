"""The operators for CUDA on stand-ins that compute on the host: tests/cuda_stand_in.

Numbers beside numpy, one algorithm for all row counts, what is refused; and the kernels' source beside what is made of
it.
"""

from __future__ import annotations

import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import packed_attention as reference
import pytest
from cuda_stand_in.sessions import TYPES, StandIn, fed, model, run

from fastembed_rt.native import build, cuda, ptx

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++ on Linux"
)
Array = npt.NDArray[Any]
# Half a step of the last place of results, and what another order of a float32 sum may add to it.
BOUND = {"Float16": 1e-3, "BFloat16": 8e-3}
FORWARD, BACKWARD, BY_EIGHT, SPLIT = 1, 2, 3, 4  # algorithms of the stand-in


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.built(tmp_path_factory.mktemp("cuda"))


def numbers(random: np.random.Generator, kind: str, *shape: int, scale: float = 1.0) -> Array:
    return (random.standard_normal(shape) * scale).astype(TYPES[kind])


def near(found: Array, wanted: Array, kind: str) -> None:
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    assert np.abs(a - b).max() <= BOUND[kind] * max(np.abs(b).max(), 1)
    assert np.linalg.norm(a - b) <= BOUND[kind] / 2 * np.linalg.norm(b)


# What they compute


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("activation", ["", "gelu_tanh", "relu"])
@pytest.mark.parametrize("bias", [0, 1])
def test_a_product_ends_in_its_bias_and_activation(stand_in: StandIn, kind: str, activation: str, bias: int) -> None:
    random = np.random.default_rng(0)
    weight, own = numbers(random, kind, 48, 40, scale=0.15), numbers(random, kind, 40)
    constants = [weight, own][: 1 + bias]
    attributes = {
        "in_features": 48,
        "out_features": 40,
        "bias": bias,
        **({"activation": activation} if activation else {}),
    }
    x = numbers(random, kind, 1, 48)
    session = stand_in.session(model(f"Linear{kind}", {"x": x}, constants, **attributes))
    for rows in (1, 7, 65, 0):
        x = numbers(random, kind, rows, 48)
        found = fed(session, {"x": x})
        if rows:
            near(found, reference.linear(x, weight, own if bias else None, activation), kind)
        else:
            assert found.shape == (0, 40)


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize(("width", "rows"), [(8, 1), (264, 9), (768, 6), (8192, 2)])
@pytest.mark.parametrize("given", ["", "beta bias", "bias rms"])
def test_a_residual_a_bias_and_a_normalization_are_one(
    stand_in: StandIn, kind: str, width: int, rows: int, given: str
) -> None:
    random = np.random.default_rng(width)
    x, skip = numbers(random, kind, rows, width, scale=3), numbers(random, kind, rows, width)
    options = {name: int(name in given.split()) for name in ("beta", "bias", "rms")}
    constants = [numbers(random, kind, width)]
    constants += [numbers(random, kind, width) for name in ("beta", "bias") if options[name]]
    found = run(stand_in, f"AddNorm{kind}", {"x": x, "skip": skip}, constants, width=width, epsilon=1e-5, **options)
    near(found, reference.add_norm(x, skip, constants, epsilon=1e-5, **options), kind)


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("given", ["", "positions", "types", "positions types beta", "positions beta rms"])
def test_embeddings_are_added_up_and_normalized_at_once(stand_in: StandIn, kind: str, given: str) -> None:
    random = np.random.default_rng(0)
    width, rows = 72, 13
    options = {name: int(name in given.split()) for name in ("positions", "types", "beta", "rms")}
    ids = random.integers(0, 50, rows)
    tables = {"positions": (random.integers(0, 20, rows), 20), "types": (random.integers(0, 2, rows), 2)}
    feeds, others, inputs = {"ids": ids}, [], ["ids", "c0"]
    constants = [numbers(random, kind, 50, width)]
    for name, (index, size) in tables.items():
        if options[name]:
            feeds[name] = index
            inputs += [name, f"c{len(constants)}"]
            constants.append(numbers(random, kind, size, width))
            others += [index, constants[-1]]
    parameters = [numbers(random, kind, width) for _ in range(1 + options["beta"])]
    inputs += [f"c{len(constants) + k}" for k in range(len(parameters))]
    from onnx import ModelProto

    made = ModelProto.FromString(
        model(f"EmbedNorm{kind}", feeds, [*constants, *parameters], width=width, epsilon=1e-12, **options)
    )
    made.graph.node[0].input[:] = inputs
    found = fed(stand_in.session(made.SerializeToString()), feeds)
    wanted = reference.embed_norm(ids, constants[0], [*others, *parameters], epsilon=1e-12, **options)
    near(found, wanted, kind)


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("width", [8, 72, 768])
def test_a_mean_is_that_of_each_text(stand_in: StandIn, kind: str, width: int) -> None:
    random = np.random.default_rng(0)
    starts = np.cumsum([0, 1, 40, 0, 7, 100]).astype(np.int32)
    x = numbers(random, kind, 150, width)  # two more, which belong to no text
    found = run(stand_in, f"Mean{kind}", {"x": x, "starts": starts}, [], width=width)
    np.testing.assert_allclose(found, reference.packed_mean(x, starts), atol=2e-6)


def test_rows_that_a_table_has_not_add_nothing(stand_in: StandIn) -> None:
    """Nothing is read beyond a table, whatever a feed says."""
    words, gamma = np.ones((4, 8), np.float16), np.ones(8, np.float16)
    words[:, 0] = 3
    ids = np.array([1, -1, 4, 1 << 40])
    found = run(stand_in, "EmbedNormFloat16", {"ids": ids}, [words, gamma], width=8, epsilon=1e-5)
    assert np.abs(found[0]).max() > 1
    assert not found[1:].any()


# The same bits in any batch


def test_a_row_has_the_same_bits_in_any_number_of_rows(stand_in: StandIn) -> None:
    """The stand-in adds up in another order for few rows, for more and for many, if it is asked for so many."""
    random = np.random.default_rng(0)
    x, weight = numbers(random, "Float16", 1100, 256), numbers(random, "Float16", 256, 16)
    session = stand_in.session(model("LinearFloat16", {"x": x}, [weight], in_features=256, out_features=16))
    before = [stand_in.host.stand_in_products(order) for order in range(5)]
    whole = fed(session, {"x": x})
    for start, stop in ((0, 1), (77, 78), (3, 19), (100, 165), (0, 1030)):
        assert fed(session, {"x": x[start:stop]}).tobytes() == whole[start:stop].tobytes()
    ran = [stand_in.host.stand_in_products(order) - count for order, count in enumerate(before)]
    assert sorted(ran) == [0, 0, 0, 0, 6]
    assert not ran[SPLIT]


def test_normalizations_and_means_have_the_same_bits_wherever_they_lie(stand_in: StandIn) -> None:
    random = np.random.default_rng(0)
    x, skip, gamma = (numbers(random, "Float16", *shape) for shape in ((90, 200), (90, 200), (200,)))
    options = {"width": 200, "epsilon": 1e-5}
    whole = run(stand_in, "AddNormFloat16", {"x": x, "skip": skip}, [gamma], **options)
    alone = run(stand_in, "AddNormFloat16", {"x": x[41:42], "skip": skip[41:42]}, [gamma], **options)
    assert alone.tobytes() == whole[41:42].tobytes()
    starts = np.array([0, 3, 70, 90], np.int32)
    means = run(stand_in, "MeanFloat16", {"x": x, "starts": starts}, [], width=200)
    own = run(stand_in, "MeanFloat16", {"x": x[3:70], "starts": np.array([0, 67], np.int32)}, [], width=200)
    assert own[0].tobytes() == means[1].tobytes()


# Threads


def test_many_threads_share_a_session(stand_in: StandIn) -> None:
    random = np.random.default_rng(0)
    weight, bias = numbers(random, "Float16", 64, 32), numbers(random, "Float16", 32)
    inputs = [numbers(random, "Float16", rows, 64) for rows in (1, 5, 17, 64)]
    graph = model("LinearFloat16", {"x": inputs[0]}, [weight, bias], in_features=64, out_features=32, bias=1)
    session = stand_in.session(graph)
    wanted = [fed(session, {"x": x}) for x in inputs]
    wrong: list[int] = []

    def work() -> None:
        for turn in range(20):
            for k, x in enumerate(inputs):
                if fed(session, {"x": x}).tobytes() != wanted[k].tobytes():
                    wrong.append(turn)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# What is refused


HALF = np.zeros((4, 16), np.float16)
REFUSED: dict[str, tuple[str, dict[str, Array], list[Array], dict[str, Any], str]] = {
    "odd width": (
        "LinearFloat16",
        {"x": HALF},
        [np.zeros((16, 12), np.float16)],
        {"in_features": 16, "out_features": 12},
        "out_features is 12 and has to be a multiple of 8",
    ),
    "no width": (
        "LinearFloat16",
        {"x": HALF},
        [np.zeros((16, 8), np.float16)],
        {"out_features": 8},
        "attribute in_features is missing",
    ),
    "another weight": (
        "LinearFloat16",
        {"x": HALF},
        [np.zeros((16, 16), np.float16)],
        {"in_features": 16, "out_features": 8},
        r"w is float16 \(16, 16\) and has to be float16 \(16, 8\)",
    ),
    "another x": (
        "LinearFloat16",
        {"x": HALF[:, :8].copy()},
        [np.zeros((16, 8), np.float16)],
        {"in_features": 16, "out_features": 8},
        r"x is float16 \(4, 8\)",
    ),
    "another type": (
        "LinearFloat16",
        {"x": HALF.astype(np.float32)},
        [np.zeros((16, 8), np.float16)],
        {"in_features": 16, "out_features": 8},
        r"x is float32 \(4, 16\) and has to be float16",
    ),
    "an activation": (
        "LinearFloat16",
        {"x": HALF},
        [np.zeros((16, 8), np.float16)],
        {"in_features": 16, "out_features": 8, "activation": "gelu"},
        "activation is 'gelu'",
    ),
    "no bias": (
        "LinearFloat16",
        {"x": HALF},
        [np.zeros((16, 8), np.float16)],
        {"in_features": 16, "out_features": 8, "bias": 1},
        "the node has 2 inputs and describes 3",
    ),
    "an input more": (
        "LinearFloat16",
        {"x": HALF},
        [np.zeros((16, 8), np.float16), np.zeros(8, np.float16)],
        {"in_features": 16, "out_features": 8},
        "the node has 3 inputs and describes 2",
    ),
    "a short bias": (
        "LinearFloat16",
        {"x": HALF},
        [np.zeros((16, 8), np.float16), np.zeros(4, np.float16)],
        {"in_features": 16, "out_features": 8, "bias": 1},
        r"bias is float16 \(4\)",
    ),
    "a wide row": (
        "AddNormFloat16",
        {"x": HALF, "skip": HALF},
        [np.zeros(16, np.float16)],
        {"width": 8200, "epsilon": 1e-5},
        "width is 8200 and has to be from 8 to 8192",
    ),
    "rows": (
        "AddNormFloat16",
        {"x": HALF, "skip": HALF[:2].copy()},
        [np.zeros(16, np.float16)],
        {"width": 16, "epsilon": 1e-5},
        r"skip is float16 \(2, 16\)",
    ),
    "epsilon": (
        "AddNormFloat16",
        {"x": HALF, "skip": HALF},
        [np.zeros(16, np.float16)],
        {"width": 16, "epsilon": -1.0},
        "epsilon is -1",
    ),
    "int32 ids": (
        "EmbedNormFloat16",
        {"x": np.zeros(4, np.int32)},
        [HALF, np.zeros(16, np.float16)],
        {"width": 16, "epsilon": 1e-5},
        "ids is int32",
    ),
    "no starts": ("MeanFloat16", {"x": HALF, "starts": np.zeros(0, np.int32)}, [], {"width": 16}, "starts is empty"),
    "int64 starts": ("MeanFloat16", {"x": HALF, "starts": np.zeros(2, np.int64)}, [], {"width": 16}, "starts is int64"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_does_not_fit_is_refused_in_a_sentence(stand_in: StandIn, case: str) -> None:
    op, feeds, constants, attributes, said = REFUSED[case]
    with pytest.raises(Exception, match=rf"fastembed_rt: {op}: .*{said}"):
        run(stand_in, op, feeds, constants, **attributes)


def test_a_bias_that_is_no_constant_is_refused(stand_in: StandIn) -> None:
    feeds = {"x": HALF, "w": np.zeros((16, 8), np.float16), "b": np.zeros(64, np.float16)[:8]}
    session = stand_in.session(model("LinearFloat16", feeds, [], in_features=16, out_features=8, bias=1))
    fed(session, feeds)
    held = [np.zeros(8, np.float16) for _ in range(3)]  # at addresses of their own
    with pytest.raises(Exception, match="the bias lies elsewhere than in the call before"):
        for other in held:
            fed(session, {**feeds, "b": other})


def test_libraries_that_are_missing_or_of_another_kind_are_named(stand_in: StandIn, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.so"
    shutil.copy(stand_in.file, fresh)
    assert "no-such-library.so" in str(cuda.open_libraries(fresh, "no-such-library.so"))
    assert "libm.so.6 has no cublasLtCreate" in str(cuda.open_libraries(fresh, "libm.so.6"))
    with pytest.raises(Exception, match="cuBLASLt is not open"):
        onnxruntime.SessionOptions().register_custom_ops_library(str(fresh))
    assert cuda.open_libraries(stand_in.file, "libm.so.6", "libm.so.6") == "this process has stand-ins open already"
    assert "is not compiled" not in str(cuda.open_libraries(tmp_path / "none.so", "x"))
    (tmp_path / "other.so").write_bytes(b"no library")
    assert "does not load" in str(cuda.open_libraries(tmp_path / "other.so", "x"))
    assert (
        "of another version"
        in str(cuda.open_libraries(Path(shutil.copy(build.HERE / build.LIBRARY, tmp_path / "cpu.so")), "x"))
        if (build.HERE / build.LIBRARY).is_file()
        else True
    )


def test_cards_are_told_by_their_capability(stand_in: StandIn) -> None:
    assert cuda.capability(stand_in.file, 0) == 90
    assert cuda.capability(stand_in.file, 7) == -1
    assert cuda.why_not_on(75, "fp16") is None
    assert cuda.why_not_on(75, "bf16") == "bf16 wants compute capability 8.0, this card has 7.5"
    assert cuda.why_not_on(70, "fp16") == "fp16 wants compute capability 7.5, this card has 7.0"
    assert cuda.why_not_on(-1, "fp16") == "fp16 wants compute capability 7.5, the card tells none"
    assert cuda.why_not_on(90, "fp32") == "they are for fp16, bf16 and fp8, not fp32"
    assert cuda.why_not_on(89, "fp8") is None
    assert cuda.why_not_on(86, "fp8") == "fp8 wants compute capability 8.9, this card has 8.6"


# The kernels' text


@pytest.mark.parametrize("name", list(ptx.SOURCES))
def test_the_kernels_that_are_checked_in_are_those_of_their_source(name: str) -> None:
    first = ptx.output(name).read_text(encoding="ascii").splitlines()[0]
    assert ptx.source_hash(name) in first, "run python -m fastembed_rt.native.ptx, which needs nvcc"


@pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("ptxas")), reason="needs nvcc and ptxas")
@pytest.mark.slow
@pytest.mark.parametrize("name", list(ptx.SOURCES))
def test_the_command_makes_what_is_checked_in_and_every_card_has_code_for_it(name: str) -> None:
    assert ptx.make(name) == ptx.output(name).read_text(encoding="ascii")


def test_kernels_take_the_arguments_that_the_operators_pass() -> None:
    """By number and size, from the text that the driver reads."""
    texts = {name: ptx.output(name).read_text(encoding="ascii") for name in ptx.SOURCES}
    entries = dict(re.findall(r"\.visible \.entry (\w+)\(([^)]*)\)", "".join(texts.values())))
    sizes = {name: re.findall(r"\.param \.([a-z]\d+)", body) for name, body in entries.items()}
    for suffix in ("float16", "bfloat16"):
        assert sizes[f"fastembed_rt_add_norm_{suffix}"] == [*["u64"] * 7, "u32", "f32", "u32"]
        assert sizes[f"fastembed_rt_embed_norm_{suffix}"] == [*["u64"] * 13, "u32", "f32", "u32"]
        assert sizes[f"fastembed_rt_mean_{suffix}"] == [*["u64"] * 3, "u32", "u32"]
        assert sizes[f"fastembed_rt_sum_norm_{suffix}"] == [*["u64"] * 7, "u32", "f32", "u32"]
        assert sizes[f"fastembed_rt_gated_{suffix}"] == [*["u64"] * 4, "u32"]
        assert sizes[f"fastembed_rt_turn_{suffix}"] == [*["u64"] * 9, "u32", "u32", "f32"]
        assert sizes[f"fastembed_rt_word_weights_{suffix}"] == [*["u64"] * 3, *["u32"] * 4]
        assert sizes[f"fastembed_rt_unit_{suffix}"] == [*["u64"] * 3, "u32"]
        for head in (32, 64, 128):
            assert sizes[f"fastembed_rt_attention_{head}_{suffix}"] == [*["u64"] * 10, *["u32"] * 7]
    assert sizes["fastembed_rt_dense"] == [*["u64"] * 4, *["u32"] * 4]
    assert sizes["fastembed_rt_add_norm_fp8"] == [*["u64"] * 10, "u32", "f32", "u32"]
    assert sizes["fastembed_rt_embed_norm_fp8"] == [*["u64"] * 16, "u32", "f32", "u32"]
    assert sizes["fastembed_rt_quantize_fp8"] == [*["u64"] * 5, "u32"]
    assert len(entries) == 6 + 6 + 5 + 6 + 3
    # What the driver may join, or not, decides bits; the others have the functions of CUDA's library too.
    assert not any(re.search(r"\b(?:mul|add|sub)(?:\.ftz)?\.f32", text) for text in texts.values())
    assert not any("fma." in texts[name] for name in ("kernels", "fp8"))
    assert "mul.rn.f32" in texts["kernels"]
    assert texts["fp8"].count("cvt.rn.satfinite.e4m3x2.f32") == 12, "eight numbers in each"
    assert texts["kernels"].count("ld.global.v4.u32") > 20, "rows are read eight numbers at a time"
    for instruction in ("mma.sync.aligned.m16n8k16", "ldmatrix.sync", "cp.async.cg"):
        assert instruction in texts["attention"]
