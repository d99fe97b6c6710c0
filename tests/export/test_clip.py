"""Text models of CLIP beside transformers: the vector of the end of text, in all layouts that are published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import transformers
from checkpoints import OWN_FP32, TEXTS, assert_vectors_agree, change_json, change_tensors, save_transformers
from clip_checkpoints import (
    END,
    END_ID,
    save_clip,
    save_clip_again,
    save_clip_module,
    save_projected,
    text_settings,
    vocabulary,
)
from exports import quick
from packed_attention import evaluate
from tolerances import REFERENCE, close

from fastembed_rt import EmbeddingModel
from fastembed_rt.run import batching
from fastembed_rt_export import tasks
from fastembed_rt_export.architectures import clip
from fastembed_rt_export.checkpoint.read import Overrides
from fastembed_rt_export.errors import CheckpointError, InvalidInputError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.graph import cuda
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.pipeline import ExportOptions, check_again, export

pytestmark = pytest.mark.usefixtures("short_gate")

# Texts with an end in their midst, and at their very beginning.
MORE = [*TEXTS, f"a cat {END} the dog", f"{END}{END} dogs", "the cat, the cat"]
Saved = Callable[[Path], Path]
LAYOUTS: dict[str, Saved] = {
    "plain": save_clip,
    "without images": lambda path: save_clip(path, images=False),
    "a module of its own": save_clip_module,
    "saved again": save_clip_again,
    "text model": save_projected,
}
# What config.json has as eos_token_id: the one that stands for none, the tokenizer's, that of a word.
ENDS = {"none": clip.NO_END, "the end": END_ID, "a word": vocabulary()["cat</w>"]}


def features(path: Path, texts: list[str] = MORE) -> npt.NDArray[Any]:
    """transformers' vectors of texts in one batch."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    given = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        if json.loads((path / "config.json").read_text(encoding="utf-8"))["model_type"] == clip.MODEL_TYPE:
            found = transformers.CLIPTextModelWithProjection.from_pretrained(path)(**given).text_embeds
        else:
            found = transformers.CLIPModel.from_pretrained(path).get_text_features(**given).pooler_output
    vectors: npt.NDArray[Any] = found.numpy()
    return vectors


def model_folder(source: Path) -> Path:
    inner = source / "0_CLIPModel"
    return inner if inner.is_dir() else source


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_are_the_text_features_of_transformers(tmp_path: Path, layout: str) -> None:
    source = LAYOUTS[layout](tmp_path / "source")
    wanted = features(model_folder(source))
    quick(source, tmp_path / "out", precisions=("fp32", "bf16"))
    for target, precision in ((None, "fp32"), ("cpu", "fp32"), ("portable", "fp32"), (None, "bf16")):
        with EmbeddingModel(tmp_path / "out", target=target, precision=precision) as model:
            found = model.encode(MORE)
            close(found, wanted, 0.1 if precision == "bf16" else REFERENCE)
            if target != "portable":
                np.testing.assert_array_equal(found, np.concatenate([model.encode([text]) for text in MORE]))


def test_positions_that_older_files_hold_are_passed_over(tmp_path: Path) -> None:
    source = save_clip(tmp_path / "source")
    places = np.arange(24, dtype=np.int64)[None]
    change_tensors(source, lambda tensors: tensors.update({"text_model.embeddings.position_ids": places}))
    assert not any("left out" in note for note in quick(source, tmp_path / "out").notes)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("save", [save_clip, save_projected])
def test_the_end_of_text_is_the_token_that_transformers_takes(tmp_path: Path, save: Any, end: str) -> None:
    source = save(tmp_path / "source", eos_token_id=ENDS[end])
    wanted = features(source)
    assert end != "a word" or np.abs(wanted - features(save(tmp_path / "other"))).max() > 0.1
    quick(source, tmp_path / "out")
    for target in (None, "cpu", "portable"):
        with EmbeddingModel(tmp_path / "out", target=target) as model:
            close(model.encode(MORE), wanted)


@pytest.mark.parametrize("layout", ["a module of its own", "saved again", "text model"])
def test_the_gate_compares_with_the_layout_as_it_is(tmp_path: Path, layout: str) -> None:
    source = LAYOUTS[layout](tmp_path / "source")
    precisions = ("fp32", "int8") if layout == "text model" else ("fp32",)
    made = export(str(source), ExportOptions(output=tmp_path / "out", precisions=precisions))
    assert made.manifest.parity["status"] == "passed"
    assert not made.refused
    assert made.manifest.pooling == ("eos",)


def test_the_gate_finds_another_projection(tmp_path: Path) -> None:
    source = save_projected(tmp_path / "source")
    quick(source, tmp_path / "out")
    change_tensors(source, lambda tensors: tensors.update({clip.PROJECTION: tensors[clip.PROJECTION] * 1.5}))
    with pytest.raises(ParityError, match="out of bounds"):
        check_again(tmp_path / "out", str(source), ExportOptions(), print)


def test_modules_behind_the_model_and_options_are_honoured(tmp_path: Path) -> None:
    source = save_clip_again(tmp_path / "source", "Normalize")
    wanted = features(source)
    quick(source, tmp_path / "unit")
    with EmbeddingModel(tmp_path / "unit") as model:
        close(model.encode(MORE), wanted / np.linalg.norm(wanted, axis=1, keepdims=True))
    quick(source, tmp_path / "cut", overrides=Overrides(normalize=False, truncate_dim=8, max_length=9))
    with EmbeddingModel(tmp_path / "cut") as model:
        close(model.encode(MORE[:2]), wanted[:2, :8])
        assert model.max_length == 9


def test_older_settings_of_the_text_model_count_more(tmp_path: Path) -> None:
    source = save_clip(tmp_path / "source")
    again = {key: value for key, value in text_settings(eos_token_id=END_ID).items() if key != "bos_token_id"}
    inner = text_settings(hidden_act="relu", eos_token_id=vocabulary()["cat</w>"])
    change_json(source / "config.json", text_config=inner, text_config_dict=again)
    wanted = transformers.AutoConfig.from_pretrained(source).text_config
    found = clip.read_config(json.loads((source / "config.json").read_text(encoding="utf-8")))
    assert {key: found[key] for key in clip.DEFAULTS} == {key: getattr(wanted, key) for key in clip.DEFAULTS}
    assert {key: getattr(transformers.CLIPTextConfig(), key) for key in clip.DEFAULTS} == clip.DEFAULTS


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graphs_for_cards_take_the_same_token(tmp_path: Path, precision: str) -> None:
    checkpoint = tasks.load(save_clip(tmp_path / "source"), "source")
    write(tasks.build(checkpoint, cuda.target(precision), cuda.OPSET).graph, tmp_path, "g.onnx", name="g", metadata={})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "source")
    rows = [np.array(ids[:24]) for ids in tokenizer(MORE).input_ids]
    texts = [text for text, row in zip(MORE, rows, strict=True) if len(row) < 24]
    rows = [row for row in rows if len(row) < 24]
    names = [entry.name for entry in onnx.load(str(tmp_path / "g.onnx")).graph.input]
    found = evaluate(tmp_path / "g.onnx", batching.packed_for_cuda(rows, names))
    close(found, features(tmp_path / "source", texts), REFERENCE if precision == "fp32" else 0.02)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"overrides": Overrides(pooling=("mean",))}, InvalidInputError),
        ({"exporter": "optimum"}, UnsupportedCheckpointError),
        ({"layout": "hub"}, UnsupportedCheckpointError),
    ],
)
def test_what_would_give_other_vectors_is_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=r"pooling is not for|not traced|no tool pools"):
        quick(save_clip(tmp_path / "source"), tmp_path / "out", **options)


def test_a_checkpoint_without_its_projection_is_an_error(tmp_path: Path) -> None:
    source = save_clip(tmp_path / "source")
    change_tensors(source, lambda tensors: tensors.pop(clip.PROJECTION))
    with pytest.raises(CheckpointError, match=r"no text_projection\.weight"):
        quick(source, tmp_path / "out")


@pytest.mark.parametrize("model_type", ["bert", "qwen3"])
def test_quick_gelu_is_that_of_transformers_with_and_without_a_gate(tmp_path: Path, model_type: str) -> None:
    source = save_transformers(tmp_path / "source", model_type, hidden_act="quick_gelu", intermediate_size=64)
    assert_vectors_agree(source, tmp_path / "out")
    for name in OWN_FP32:
        nodes = onnx.load(str(tmp_path / "out" / name), load_external_data=False).graph.node
        assert "Fp32FeedForward" in {node.op_type for node in nodes}
