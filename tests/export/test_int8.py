"""Static INT8: how near it stays to fp32 on torch, that neighbours do not matter, that it can be made again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from checkpoints import save_sentence_transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tolerances import close

from fastembed_rt import EmbeddingModel, native
from fastembed_rt_export import quantize, tasks
from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.errors import InvalidInputError, ParityError
from fastembed_rt_export.gate.parity import Fidelity, parity_texts
from fastembed_rt_export.graph.cpu import CPU
from fastembed_rt_export.graph.int8 import GroupRecipe, quantize_weight
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.quantize import calibration, degenerate_texts, long_texts, ranges, rounding
from fastembed_rt_export.tasks.embedding import build

Vectors = npt.NDArray[np.float32]
INT8 = "model.cpu.int8.onnx"


def quick(source: Path, output: Path, **options: object) -> Path:
    """An INT8 export without the reference on torch."""
    chosen = {"precisions": ("int8",), "verify": False, "min_cosine": -1.0, **options}
    export(str(source), ExportOptions(output=output, **chosen))  # type: ignore[arg-type]
    return output


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT in INT8."""
    source = save_sentence_transformers(tmp_path_factory.mktemp("source") / "bert", max_seq_length=40)
    return quick(source, tmp_path_factory.mktemp("int8") / "small")


# Six random layers on end bring all ordinary text so near together that the least ordinary text is clipped.
AS_DEEP_AS_OTHERS: dict[str, dict[str, Any]] = {"albert": {"inner_group_num": 1}}


# Where one token is wanted the last layer is another one: of these families here, of all under the marker slow.
ONE_TOKEN = ("albert", "bert", "modernbert", "mpnet")
# Their graphs are those of bert, llama or t5, but for where tensors are read from and how positions are counted.
ALIKE = (
    "camembert",
    "data2vec-text",
    "distilbert",
    "ernie",
    "llama_bidirec",
    "mistral",
    "mt5",
    "roberta",
    "xlm-roberta",
)


@pytest.mark.parametrize(
    ("model_type", "pooling"),
    [
        *(pytest.param(name, "mean", marks=[pytest.mark.slow] * (name in ALIKE)) for name in sorted(ARCHITECTURES)),
        *(
            pytest.param(name, "cls", marks=[pytest.mark.slow] * (name not in ONE_TOKEN))
            for name in sorted(ARCHITECTURES)
        ),
    ],
)
@pytest.mark.usefixtures("short_gate")  # what is compared here are all texts
def test_every_architecture_has_int8_near_its_fp32(tmp_path: Path, model_type: str, pooling: str) -> None:
    changes = AS_DEEP_AS_OTHERS.get(model_type, {})
    source = save_sentence_transformers(tmp_path / "source", model_type, pooling=pooling, max_seq_length=40, **changes)
    export(
        str(source),
        ExportOptions(output=tmp_path / "made", precisions=("int8", "fp32"), min_cosine=0.9, verify=False),
    )
    texts = [case.text for case in parity_texts()]
    with EmbeddingModel(tmp_path / "made", target="portable", precision="fp32") as exact:
        expected = exact.encode(texts)
    with EmbeddingModel(tmp_path / "made") as model:
        assert model.variant.precision == "int8"
        fidelity = Fidelity.of(model.encode(texts), expected)
    assert fidelity.mean_cosine > 0.99, fidelity
    assert fidelity.mean_cosine < 1 - 1e-7, "that was not int8"
    if native.kernels():
        own = onnx.load(str(tmp_path / "made" / "model.native.int8.onnx"), load_external_data=False).graph
        names = {node.op_type for node in own.node}
        assert not [name for name in names if "Integer" in name or "QuantizeLinear" in name], "not asked for overflows"
    # Without VNNI onnxruntime makes a signed weight unsigned for its first node, and stops at the second.
    graph = onnx.load(str(tmp_path / "made" / INT8), load_external_data=False).graph
    signed = {entry.name for entry in graph.initializer if entry.data_type == onnx.TensorProto.INT8}
    read = [node.input[1] for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert len(set(read) & signed) == sum(name in signed for name in read)


def test_the_card_shows_plain_onnxruntime_only_where_a_graph_for_it_is(small: Path) -> None:
    card = (small / "README.md").read_text(encoding="utf-8")
    assert not (small / "model.onnx").exists()
    assert "InferenceSession(" not in card
    assert "## What is in it" in card


WORDS = ["cat", "dog", "the", "river", "runs", "quickly", "over", "new", "city", "z"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1, max_size=12),
    st.sampled_from([16, 64, 1024]),
)
def test_neighbours_change_no_bit_of_an_int8_vector(small: Path, texts: list[str], budget: int) -> None:
    with EmbeddingModel(small, max_batch_tokens=budget, threads=2) as model:
        together = model.encode(texts)
        alone = np.stack([model.encode(text) for text in texts])
    np.testing.assert_array_equal(together, alone)


def test_onnxruntime_is_asked_for_overflows_where_its_products_run_alone(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    for target in ["cpu", *(["native"] if native.kernels() else [])]:
        monkeypatch.setattr("fastembed_rt.run.overflow.overflows", lambda _, target=target: asked.append(target))
        EmbeddingModel(small, precision="int8", target=target).close()
    assert asked == ["cpu"]


def test_no_layer_goes_back_to_float_where_none_fails(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "bert", max_seq_length=40)
    whole = quick(source, tmp_path / "whole", min_cosine=0.99)
    for variant in json.loads((whole / "manifest.json").read_text(encoding="utf-8"))["variants"]:
        assert variant["notes"]["float_groups"] == []


def test_two_exports_give_the_same_bytes(small: Path, tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "bert", max_seq_length=40)
    again = quick(source, tmp_path / "again")
    assert (again / INT8).read_bytes() == (small / INT8).read_bytes()


def test_other_calibration_texts_give_other_scales_and_are_counted(small: Path, tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "bert", max_seq_length=40)
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("the cat runs\nthe dog sleeps\n\n", encoding="utf-8")
    (folder / "b.jsonl").write_text('"a river"\n{"text": "a new city"}\n', encoding="utf-8")
    made = quick(source, tmp_path / "made", calibration=folder)
    body = json.loads((made / "manifest.json").read_text(encoding="utf-8"))
    given = ["the cat runs", "the dog sleeps", "a river", "a new city"]
    beside = len(degenerate_texts()) + len(long_texts(given, 40))
    assert body["variants"][0]["notes"]["calibration"]["texts"] == len(given) + beside
    assert (made / INT8).read_bytes() != (small / INT8).read_bytes()


def test_calibration_without_texts_is_refused(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "bert")
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    with pytest.raises(InvalidInputError, match="has no texts"):
        quick(source, tmp_path / "made", calibration=tmp_path / "empty.txt")
    assert not (tmp_path / "made").exists()


def test_vectors_below_the_floor_fail_the_export_and_leave_nothing(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "bert", num_hidden_layers=1)
    with pytest.raises(ParityError, match=r"cosine mean .* asked for 1\.0 or more"):
        quick(source, tmp_path / "made", min_cosine=1.0)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "broken", ["encoder.layer.0.attention.self.query.weight.scaled+2", "encoder.layer.1.intermediate.dense.weight"]
)
def test_the_layer_that_fails_texts_goes_back_to_float_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    source = save_sentence_transformers(tmp_path / "bert", max_seq_length=40)
    true, one, current = rounding.rounded, calibration._Found._one, threading.local()

    def rounded(*given: Any) -> rounding.Integers:
        integers = true(*given)
        return integers * 0 if current.key == broken else integers

    def noted(self: Any, key: str) -> Any:
        current.key = key
        return one(self, key)

    monkeypatch.setattr(calibration._Found, "_one", noted)
    monkeypatch.setattr(rounding, "rounded", rounded)
    made = quick(source, tmp_path / "made", min_cosine=0.99)
    monkeypatch.undo()
    for variant in json.loads((made / "manifest.json").read_text(encoding="utf-8"))["variants"]:
        notes = variant["notes"]
        assert notes["float_groups"] == [broken], notes
        assert notes["int8_groups"] == 11, "four groups in each of three layers"
        assert notes["fidelity"]["min_cosine"] >= 0.99


@pytest.mark.parametrize(("pooling", "dithered"), [("mean", True), ("cls", False), ("max", False)])
@pytest.mark.skipif(native.kernels() is None, reason="no graph for target native is written")
def test_inputs_are_dithered_where_errors_of_tokens_are_averaged(tmp_path: Path, pooling: str, dithered: bool) -> None:
    source = save_sentence_transformers(tmp_path / "bert", pooling=pooling)
    made = quick(source, tmp_path / "made")
    nodes = onnx.load(made / "model.native.int8.onnx", load_external_data=False).graph.node
    found = {attribute.name for node in nodes for attribute in node.attribute if attribute.name.endswith("_dither")}
    assert found == ({"input_dither", "output_dither", "up_dither"} if dithered else set())


@pytest.mark.parametrize(
    ("precisions", "said"),
    [
        (
            ("int4",),
            "there are fp32, fp16, bf16, fp8 and int8, of which target cpu has fp32, bf16 and",
        ),
        (("fp32", "fp32"), "choose from fp32, bf16, int8, each once"),
        (("fp16",), "choose from fp32, bf16, int8, each once, or add --target cuda or tensorrt for fp16"),
        (("",), "'' is not a precision"),
    ],
)
def test_a_precision_that_does_not_exist_is_refused(tmp_path: Path, precisions: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        export(str(tmp_path), ExportOptions(output=tmp_path / "made", precisions=precisions))


def test_excess_of_outlier_channels_is_added_back_exactly() -> None:
    sample = np.array([[0.5, 40.0], [-0.25, -3.0]], dtype=np.float32)
    group = GroupRecipe(scale=0.01, zero_point=128, outliers=(1,))
    got = sample + ranges.lost(sample, group)
    np.testing.assert_allclose(got[:, 0], sample[:, 0], atol=0.005)
    np.testing.assert_allclose(got[:, 1], sample[:, 1], atol=0.006)  # 40 is far beyond the clip at 1.27


def random_group(rare: float) -> tuple[ranges.Inputs, ranges.Outputs, Vectors]:
    """Inputs, of which a channel is so many times as large in one token of fifty; what is known of weights; these."""
    random = np.random.default_rng(5)
    sample = random.normal(0, 1, (1000, 48)).astype(np.float32)
    sample[::50, 7] *= rare
    weights = random.normal(0, 0.1, (48, 96)).astype(np.float32)
    inputs = ranges.Inputs(sample, sample.min(axis=0), sample.max(axis=0))
    return inputs, ranges.Outputs(weights, np.abs(weights).max(axis=1), weights), weights


def error(group: GroupRecipe, sample: Vectors, weights: Vectors) -> float:
    """Mean squared error of what operators with tails make of a sample, weights at the nearest integers."""
    inputs = ranges.divided(sample, group.smooth)
    own = weights if group.smooth is None else weights * group.smooth[:, None]
    values, scales = quantize_weight(own)
    return float(np.square((inputs + ranges.lost(inputs, group)) @ (values * scales) - sample @ weights).mean())


def test_rare_large_inputs_do_not_make_integers_coarse_where_they_are_added_back() -> None:
    inputs, outputs, weights = random_group(30)
    smooth = ranges.smoothing(inputs, outputs.largest, 0.8)  # as stock operators need it, which know whole ranges alone
    shared = ranges.with_tails(inputs, GroupRecipe(scale=1.0, zero_point=0, smooth=smooth))
    own = ranges.own(inputs, outputs, shared)
    assert own is not None
    assert own.tails is not None
    assert error(own, inputs.sample, weights) < 0.6 * error(shared, inputs.sample, weights)
    largest = [np.abs(weights * (1 if group.smooth is None else group.smooth[:, None])) for group in (shared, own)]
    assert largest[1][7].max() < largest[0][7].max()


def test_integers_are_made_once_where_those_of_the_stock_graph_are_as_good() -> None:
    inputs, outputs, _ = random_group(1)
    shared = ranges.with_tails(inputs, ranges.choose(inputs, outputs, free=False, tails=False))
    assert ranges.own(inputs, outputs, shared) is None


def test_a_channel_that_calibration_saw_quiet_keeps_its_values_behind_an_activation() -> None:
    random = np.random.default_rng(9)
    sizes = np.geomspace(0.2, 6, 48)
    sample = np.maximum(random.normal(0, 1, (1000, 48)) * sizes, -0.17).astype(np.float32)
    sample[:, 0] = random.uniform(-0.17, 0.17, 1000)
    weights = (random.normal(0, 0.1, (48, 96)) / sizes[:, None]).astype(np.float32)
    inputs = ranges.Inputs(sample, sample.min(axis=0), sample.max(axis=0))
    outputs = ranges.Outputs(weights, np.abs(weights).max(axis=1), weights)
    other = sample[:1].copy()
    other[0, 0] = 3.8  # a text of which the channel tells
    taken = {}
    for smoothed in (True, False):
        group = ranges.choose(inputs, outputs, free=False, tails=False, smoothed=smoothed)
        steps = ranges.divided(other, group.smooth)
        factor = 1.0 if group.smooth is None else float(group.smooth[0])
        taken[smoothed] = factor * float((steps + ranges.lost(steps, group))[0, 0])
    assert taken[True] < 2.5, "smoothing takes it beyond the range"
    assert abs(taken[False] - 3.8) < 0.1


def test_what_an_activation_gives_is_not_smoothed(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "bert", hidden_act="relu", num_hidden_layers=1)
    tensors = load_file(source / "model.safetensors")
    up, down = (f"encoder.layer.0.{name}.dense" for name in ("intermediate", "output"))
    # The same outputs, of inputs of all sizes.
    sizes = np.geomspace(0.1, 10, len(tensors[f"{up}.bias"])).astype(np.float32)
    tensors |= {f"{up}.weight": tensors[f"{up}.weight"] * sizes[:, None], f"{up}.bias": tensors[f"{up}.bias"] * sizes}
    tensors[f"{down}.weight"] = tensors[f"{down}.weight"] / sizes
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    checkpoint, random = tasks.load(source, "made"), np.random.default_rng(0)
    texts = quantize.Sample.of([random.integers(5, 50, 12) for _ in range(40)])
    found = calibration.calibrate(
        lambda target: build(checkpoint, target, CPU.opset or 0).graph, texts, texts.only(range(8)), threads=1
    )
    assert found.recipe.groups[f"{down}.weight"].smooth is None


@pytest.mark.parametrize("sign", [1, -1])
def test_a_narrow_range_lies_where_most_inputs_are(sign: int) -> None:
    random = np.random.default_rng(3)
    sample = (sign * np.abs(random.normal(0, 1, (4000, 16)))).astype(np.float32)
    sample[::97, 3] *= 40
    inputs = ranges.Inputs(sample, sample.min(axis=0), sample.max(axis=0))
    tails = ranges.with_tails(inputs, GroupRecipe(scale=1.0, zero_point=0)).tails
    assert tails is not None
    ends = np.array([0 - tails.zero_point, 255 - tails.zero_point]) * tails.scale
    assert abs(ends[0] if sign == 1 else ends[1]) < 0.03  # no range for a sign that there is not
    beyond = np.mean((sample < ends[0]) | (sample > ends[1]))
    assert 0.0005 < beyond < 0.002


HASWELL = """
import sys, numpy as np
from fastembed_rt import EmbeddingModel, native
for target in sys.argv[3:]:
    model = EmbeddingModel(sys.argv[1], target=target, threads=1, check_hashes=False)
    vectors = model.encode(["the cat runs quickly over the old river", "a new city", "dog"])
    np.save(f"{sys.argv[2]}/{target}.npy", vectors)
"""


@pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None, reason="qemu-user is not installed: no other processor to run on"
)
def test_a_processor_without_vnni_gives_the_same_vectors(tmp_path: Path) -> None:
    # Weights at their limits and wide inputs: u8 x s8 pairs overflow 16 bits where they are not kept from it.
    source = save_sentence_transformers(tmp_path / "bert", max_seq_length=40, intermediate_size=128)
    made = quick(source, tmp_path / "made")
    targets = ["cpu", *(["native"] if native.kernels() else [])]
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", HASWELL, str(made), str(tmp_path), *targets]
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "export")])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    for target in targets:
        there = np.load(tmp_path / f"{target}.npy")
        with EmbeddingModel(made, target=target) as model:
            here = model.encode(["the cat runs quickly over the old river", "a new city", "dog"])
        if target == "native":
            close(there, here)
        else:  # a sum in another order rounds a value between two steps the other way; overflow costs 0.03 and more
            assert Fidelity.of(there, here).min_cosine > 0.999
