"""A graph cut into stages gives what the whole gives, with a few layers' weights at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import save_sentence_transformers
from tolerances import close

from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt_export import tasks
from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.gate.parity import parity_texts
from fastembed_rt_export.graph.cpu import CPU
from fastembed_rt_export.graph.graph import Graph
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.quantize import calibration, groups, sample, stages
from fastembed_rt_export.tasks.embedding import build
from fastembed_rt_export.tokenizer import tokenizer_json


def graph_of(source: Path) -> Graph:
    """The float graph of a checkpoint."""
    return build(tasks.load(source, "made"), CPU, CPU.opset or 0).graph


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
@pytest.mark.parametrize("pooling", ["mean", pytest.param("cls", marks=pytest.mark.slow)])
def test_every_architecture_is_cut_and_gives_the_same_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, pooling: str
) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, pooling=pooling, max_seq_length=40)
    checkpoint = tasks.load(source, "made")
    (tmp_path / "tokenizer.json").write_text(tokenizer_json.load(checkpoint).text, encoding="utf-8")
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", max_length=40)
    texts = tasks.quantizing(checkpoint).sample(tokenizer, [case.text for case in parity_texts()][::8])
    monkeypatch.setattr(stages, "LARGE", 1)  # the weights of small models are small
    found = groups.Groups()
    graph = build(checkpoint, groups.probe(found), CPU.opset or 0).graph
    part = graph.ending_in([texts.output], found.values)
    cut = stages.stages(part, found.values, part.weight_bytes // 8)
    assert len(cut) >= 3
    assert sorted(value for stage in cut for value in stage.watched) == sorted(found.values)
    assert max(stage.graph.weight_bytes for stage in cut) < 0.6 * part.weight_bytes
    monkeypatch.setattr(calibration, "LEAST_STAGE", part.weight_bytes // 8)
    calibrated = calibration.calibrate(
        lambda target: build(checkpoint, target, CPU.opset or 0).graph, texts.only([0, 5]), texts, threads=1
    )
    write(graph_of(source), tmp_path, "whole.onnx", name="whole", metadata={})
    whole = sample.vectors(tmp_path / "whole.onnx", texts, threads=1)
    close(calibrated.exact, whole)


def test_a_small_graph_is_one_stage(tmp_path: Path) -> None:
    graph = graph_of(save_sentence_transformers(tmp_path / "source"))
    (only,) = stages.stages(graph, [], 1 << 30)
    assert only.takes == only.gives == ()
    assert [entry.name for entry in only.graph.outputs] == ["sentence_embedding"]


def test_a_stage_ends_where_one_value_leads_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "LARGE", 1)
    graph = graph_of(save_sentence_transformers(tmp_path / "source", num_hidden_layers=4))
    cut = stages.stages(graph, [], graph.weight_bytes // 12)
    assert len(cut) >= 4
    assert [len(stage.gives) for stage in cut] == [1] * (len(cut) - 1) + [0], "a residual, and no wide states beside it"


def test_tokens_looked_at_are_the_first_the_last_and_some_between() -> None:
    lengths = [1, 2, 3, 40, 400]
    places = sample.some_tokens(lengths, 60, seed=0)
    for length, found in zip(lengths, places, strict=True):
        assert {0, length - 1} <= set(found.tolist())
        assert len(set(found.tolist())) == len(found) == min(length, len(places[-1]))
        assert found.max() < length
    assert sum(map(len, places)) <= 60
    assert all(np.array_equal(*pair) for pair in zip(places, sample.some_tokens(lengths, 60, seed=0), strict=True))
