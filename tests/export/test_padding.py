"""Whether padding changes a text's states, and that a model whose states it changes never sees any."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from checkpoints import TEXTS, save_sentence_transformers

from fastembed_rt import EmbeddingModel, manifest
from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.architectures.blocks import Config
from fastembed_rt_export.graph.graph import INT64, Graph, Value
from fastembed_rt_export.graph.ops import Ops
from fastembed_rt_export.graph.portable import enter
from fastembed_rt_export.graph.weight import Floats
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tensors import Tensors
from fastembed_rt_export.traced import padding

pytestmark = pytest.mark.usefixtures("short_gate")

Ids = npt.NDArray[np.int64]
VOCABULARY, LIMIT, PAD = 50, 40, 7
TABLE = np.random.default_rng(1).normal(size=(VOCABULARY, 6)).astype(np.float32)
ROWS = padding.sample(LIMIT, VOCABULARY, PAD)


def attention(ids: Ids, mask: Ids) -> Floats:
    """Softmax over the tokens that the mask shows."""
    states = TABLE[ids]
    scores = states @ states.swapaxes(1, 2) + np.where(mask, 0, -1e9)[:, None].astype(np.float32)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: Floats = weights / weights.sum(axis=-1, keepdims=True) @ states
    return found


def convolution(ids: Ids, mask: Ids) -> Floats:
    """Each token with its neighbours, whatever the mask says."""
    wide = np.pad(TABLE[ids], ((0, 0), (1, 1), (0, 0)))
    found: Floats = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return found


def mean_over_all(ids: Ids, mask: Ids) -> Floats:
    """Each token and the mean over the batch's width."""
    found: Floats = TABLE[ids] + TABLE[ids].mean(axis=1, keepdims=True)
    return found


def change(states: padding.States) -> float:
    return padding.change_by_padding(states, ROWS, PAD, LIMIT)


def test_the_texts_that_are_tried_have_many_lengths_up_to_the_limit_and_no_padding() -> None:
    assert [len(row) for row in ROWS] == [1, 2, 3, 5, 9, 18, 37, 40]
    assert all(PAD not in row for row in ROWS)
    assert [len(row) for row in padding.sample(2, VOCABULARY, PAD)] == [1, 2]


def test_masked_attention_is_not_changed_by_padding() -> None:
    assert change(attention) < 1e-6


@pytest.mark.parametrize("states", [convolution, mean_over_all])
def test_a_convolution_and_a_mean_over_the_batchs_width_are_changed_by_padding(states: padding.States) -> None:
    assert change(states) > 0.1


def test_what_is_not_a_number_counts_as_infinitely_far() -> None:
    good = np.ones((2, 3), np.float32)
    for bad in (np.full((2, 3), np.nan, np.float32), np.full((2, 3), np.inf, np.float32), np.ones((3, 3), np.float32)):
        assert padding.difference(bad, good) == padding.difference(good, bad) == float("inf")


def test_a_graph_that_refuses_padding_says_so_and_takes_rows_of_one_length(tmp_path: Path) -> None:
    graph = Graph(18)
    graph.output(padding.refuse_padding(graph, enter(graph, False)), "ids", INT64, ("batch", "sequence"))
    write(graph, tmp_path, "ids.onnx", name="ids", metadata={})
    onnx.checker.check_model(str(tmp_path / "ids.onnx"))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(tmp_path / "ids.onnx"), options)
    for shape in ((1, 1), (1, 9), (4, 5), (3, 1)):
        ids = np.arange(np.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(
            session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0], ids
        )
    ids, mask = np.zeros((2, 3), np.int64), np.array([[1, 1, 1], [1, 1, 0]])
    with pytest.raises(Exception, match=re.escape(padding.REFUSAL)):
        session.run(None, {"input_ids": ids, "attention_mask": mask})


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A BERT checkpoint whose row says that padding changes it, and whose portable graph stops where there is any."""
    row = ARCHITECTURES["bert"]

    def encoder(ops: Ops, config: Config, tensors: Tensors) -> Value:
        tokens = replace(ops.tokens, input_ids=padding.refuse_padding(ops.graph, ops.tokens))
        return row.encoder(replace(ops, tokens=tokens), config, tensors)

    changed = replace(row, encoder=encoder, traced=True, padding_changes=lambda: padding.NOTE.format(change=0.25))
    monkeypatch.setitem(ARCHITECTURES, "bert", changed)
    return save_sentence_transformers(tmp_path / "source", "bert")


def test_a_model_that_padding_changes_runs_texts_of_one_length_together(refusing: Path, tmp_path: Path) -> None:
    """Exported in both precisions, compared with the reference, calibrated, run in bulk and in small calls."""
    (tmp_path / "calibration.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    options = ExportOptions(
        output=tmp_path / "made",
        precisions=("fp32", "int8"),
        min_cosine=0.0,
        calibration=tmp_path / "calibration.txt",
    )
    made = export(str(refusing), options).manifest
    assert made == manifest.read(tmp_path / "made")
    assert made.padding is False
    assert padding.NOTE.format(change=0.25) in made.notes
    assert made.parity["status"] == "passed"
    texts = [text for text in TEXTS if text] * 4
    for precision, threads in (("fp32", 1), ("fp32", 2), ("int8", 2)):
        with EmbeddingModel(tmp_path / "made", precision=precision, threads=threads, max_batch_tokens=64) as model:
            alone = np.stack([model.encode([text])[0] for text in texts])
            np.testing.assert_array_equal(model.encode(texts), alone)
            np.testing.assert_array_equal(model.encode(texts[:3]), alone[:3])
            assert model.encode(["", "a cat"]).shape == (2, model.dim)


def test_the_card_of_such_a_model_runs_text_by_text_in_plain_onnxruntime(refusing: Path, tmp_path: Path) -> None:
    export(str(refusing), ExportOptions(output=tmp_path / "made", verify=False))
    card = (tmp_path / "made" / "README.md").read_text(encoding="utf-8")
    code = card.split("Or in plain onnxruntime")[1].split("```python\n")[1].split("```")[0]
    found: dict[str, npt.NDArray[np.float32]] = {}
    for name in ("tokenizer.json", "model.onnx"):
        code = code.replace(f'"{name}"', repr(str(tmp_path / "made" / name)))
    exec(code, found)
    with EmbeddingModel(tmp_path / "made") as model:
        expected = model.encode(["A sentence.", "Another one."])
    np.testing.assert_allclose(found["vectors"], expected, atol=1e-6)


def test_a_model_that_padding_does_not_change_is_not_held_to_one_length(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", "bert")
    made = export(str(source), ExportOptions(output=tmp_path / "made", verify=False)).manifest
    assert made.padding is True
    old = manifest.parse(made.to_json().replace('  "padding": true,\n', ""))
    assert old == made  # a directory of before is padded as before
