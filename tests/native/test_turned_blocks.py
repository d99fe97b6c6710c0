"""Blocks of the newer architectures: norms before them and by heads, rotary positions, residuals of every kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import reference_vectors, save_sentence_transformers
from instructions_in_c import library
from native_operators import FloatGroup, Group, erf_gelu, normed_by, run, turned_block
from onnx import load

from fastembed_rt import EmbeddingModel, native
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")

SENTENCES = ["the cat sat on the mat", "a dog", "", "river bank and money bank " * 30]


def check(found: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    off = np.abs(found - expected)
    assert off.max() < 0.15  # a few steps of the projection's input
    assert off.mean() < 1e-2  # a head that turns the wrong way is off by values around 1


@pytest.mark.parametrize("norm", ["none", "last", "first"])
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize(("rotary", "head_norms"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size"), [(3, 3, 32), (4, 2, 64), (3, 1, 128), (12, 12, 64)], ids="{}".format
)
def test_attention(heads: int, kv_heads: int, size: int, rotary: bool, head_norms: bool, rms: bool, norm: str) -> None:
    random, lengths = np.random.default_rng(heads * size), [5, 210, 40, 2, 64, 0, 3, 90]
    feeds, constants, attributes, expected = turned_block(
        random, lengths, heads, kv_heads, size, rotary=rotary, head_norms=head_norms, rms=rms, norm=norm
    )
    found = run("QuantAttention", feeds, constants, **attributes)
    check(found, expected())
    np.testing.assert_array_equal(found, run("QuantAttention", feeds, constants, 2, **attributes))
    for text in (0, 2, 4):
        start, end = feeds["starts"][text : text + 2]
        alone = {name: array[start:end] for name, array in feeds.items()} | {"starts": np.array([0, end - start])}
        others = [constant if constant is not feeds["x"] else alone["x"] for constant in constants]
        np.testing.assert_array_equal(run("QuantAttention", alone, others, **attributes), found[start:end])


@pytest.mark.parametrize("group", [Group, FloatGroup])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "turned"),
    [(4, 2, 64, True), (4, 2, 64, False), (2, 1, 512, True), (12, 12, 64, True), (40, 40, 64, False)],
    ids="{}".format,
)
def test_values_normalized_by_heads(heads: int, kv_heads: int, size: int, turned: bool, group: type[Any]) -> None:
    feeds, constants, attributes, expected = turned_block(
        np.random.default_rng(7), [5, 210, 40, 2, 64, 0, 3, 90], heads, kv_heads, size,
        rotary=turned, head_norms=turned, value_norm=True, group=group,
    )  # fmt: skip
    op = "QuantAttention" if group is Group else "Fp32Attention"
    found = run(op, feeds, constants, **attributes)
    check(found, expected())
    np.testing.assert_array_equal(found, run(op, feeds, constants, 2, **attributes))


@pytest.mark.parametrize("options", [{"before": 64, "after": 64}, {"after": 0}])
def test_windows_and_long_texts(options: dict[str, Any]) -> None:
    feeds, constants, attributes, expected = turned_block(
        np.random.default_rng(1), [700, 3, 80], 2, 1, 64, norm="first", options=options
    )
    found = run("QuantAttention", feeds, constants, **attributes)
    check(found, expected())
    np.testing.assert_array_equal(found, run("QuantAttention", feeds, constants, 2, **attributes))


def test_tiles_have_the_same_bits(tmp_path: Path) -> None:
    tiles = library(tmp_path, "TILES_IN_C")
    for heads, kv_heads in ((4, 2), (12, 12)):
        feeds, constants, attributes, _ = turned_block(np.random.default_rng(2), [100, 7, 220], heads, kv_heads, 64)
        best = run("QuantAttention", feeds, constants, **attributes)
        np.testing.assert_array_equal(run("QuantAttention", feeds, constants, 1, tiles, **attributes), best)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
def test_feed_forward(norm_first: bool, rms: bool) -> None:
    random = np.random.default_rng(3)
    up, down = Group(random, 72, (64, 64), smooth=True), Group(random, 64, (72,), outliers=3, tails=True)
    x = random.normal(0.5, 2, (150, 72)).astype(np.float32)
    norms = [[random.normal(1, 0.2, 72).astype(np.float32) for _ in range(1 if rms else 2)] for _ in range(2)]
    attributes: dict[str, Any] = {"activation": "gelu", "gated": 1, **up.attributes("up"), **down.attributes("down")}
    for prefix in ("before_", ""):
        attributes |= {f"{prefix}norm": 1, f"{prefix}epsilon": 1e-5, f"{prefix}rms": int(rms)}
        attributes[f"{prefix}norm_bias"] = int(not rms)
    attributes |= {"residual": 1, "norm_first": int(norm_first)}
    constants = [*up.tensors(), *down.tensors(), *norms[0], x, *norms[1]]
    found = run("QuantFeedForward", {"x": x}, constants, **attributes)
    np.testing.assert_array_equal(found, run("QuantFeedForward", {"x": x}, constants, 2, **attributes))

    wide = up(normed_by(norms[0], x, rms=rms).astype(np.float32))
    y = down(erf_gelu(wide[:, :64]) * wide[:, 64:])
    check(found, normed_by(norms[1], y, rms=rms) + x if norm_first else normed_by(norms[1], y + x, rms=rms))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 16, "heads": 8, "kv_heads": 4}, "that is for multiples of 32"),
        ({"norm_first": 1, "norm": 0}, "norm_first is for a norm and a residual"),
        ({"rotary": 2}, "rotary is 2"),
        ({"before_epsilon": -1.0}, "before_epsilon"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    feeds, constants, attributes, _ = turned_block(np.random.default_rng(4), head_norms=False)
    with pytest.raises(Exception, match=message):
        run("QuantAttention", feeds, constants, **{**attributes, **change})


def test_angles_of_other_tokens_are_refused() -> None:
    feeds, constants, attributes, _ = turned_block(np.random.default_rng(4))
    with pytest.raises(Exception, match="what turns heads"):
        run("QuantAttention", {**feeds, "sine": feeds["sine"][1:]}, constants, **attributes)


LARGE: dict[str, dict[str, Any]] = {
    "modernbert": {},
    "nomic_bert": {},
    "gte": {},
    "qwen3": {"head_dim": 32, "num_key_value_heads": 3},
    "gemma": {"head_dim": 32, "num_key_value_heads": 1},
    "gemma2": {"head_dim": 32, "num_key_value_heads": 3},
    "gemma3_text": {"head_dim": 32, "num_key_value_heads": 1},
    "llama": {"attention_bias": False, "mlp_bias": False},
    "mistral": {"head_dim": 32, "num_key_value_heads": 3},
    "ministral3": {"head_dim": 32, "num_key_value_heads": 1},
    "lfm2": {"layer_types": ["full_attention"] * 3},
    "eurobert": {},
    "ultrabert": {},
    "jina_embeddings_v3": {},
    "embedding_gemma2_text": {
        "head_dim": 32,
        "num_key_value_heads": 3,
        "global_head_dim": 64,
        "num_global_key_value_heads": 1,
        "hidden_size_per_layer_input": 40,
    },
}


@pytest.mark.parametrize("model_type", LARGE)
def test_checkpoints_with_heads_of_32_channels(model_type: str, tmp_path: Path) -> None:
    """A layer is two nodes, and gives the vectors of torch."""
    sizes = {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 64}
    source = save_sentence_transformers(tmp_path / "source", model_type, **{**sizes, **LARGE[model_type]})
    # Weights are random. In fp32 a cosine of float32 vectors is itself off by some 1e-7.
    least = {"fp32": 0.999999, "bf16": 0.998, "int8": 0.95}
    if native.kernels() not in native.BF16:
        del least["bf16"]
    options = ExportOptions(
        output=tmp_path / "made", precisions=tuple(least), verify=False, min_cosine=0.9, trust_remote_code=True
    )
    export(str(source), options)
    expected = reference_vectors(source, SENTENCES)
    for precision, bound in least.items():
        graph = load(tmp_path / "made" / f"model.native.{precision}.onnx", load_external_data=False).graph
        ops = [node.op_type for node in graph.node]
        assert "RotaryEmbedding" not in ops, precision
        norms = sum(op in ("LayerNormalization", "RMSNormalization") for op in ops)
        # Of the embeddings, behind the last layer.
        assert norms <= (8 if model_type == "embedding_gemma2_text" else 2), (precision, ops)
        with EmbeddingModel(tmp_path / "made", target="native", precision=precision) as model:
            found = model.encode(SENTENCES)
        cosine = np.sum(found * expected, axis=1)
        assert cosine.min() > bound, (precision, cosine)
