"""Vectors before their normalization: found in the graph, of every precision and way to keep weights, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from checkpoints import TEXTS, save_sentence_transformers
from exports import quick
from onnx import TensorProto, helper

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import MissingDependencyError, ModelFormatError
from fastembed_rt.run.unnormalized import with_unnormalized
from fastembed_rt.text.windows import Window


def unnormalized(model: EmbeddingModel, texts: list[str], **options: Any) -> Any:
    prepared = model.prepare(normalize=False, **options)
    rows = prepared.work.tokenize(Window(texts, 0))
    made = prepared.runner.run_batch(rows.ids, prepared.work.boundaries(rows), alone=False)
    return prepared.work.finish(rows, made)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("checkpoint") / "c", max_seq_length=40)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)
    assert type(model[-1]).__name__ == "Normalize"
    del model[-1]
    return model.encode(TEXTS)


def test_the_prompt_in_front_is_the_one_that_the_model_has_now(tmp_path: Path) -> None:
    prompts = {"query": "query : ", "red": "the red "}
    quick(save_sentence_transformers(tmp_path / "c", prompts=prompts), tmp_path / "m")
    with EmbeddingModel(tmp_path / "m", default_prompt_name="query", threads=1) as model:

        def wanted(prompt: str) -> Any:
            return unnormalized(model, [prompt + text for text in TEXTS], prompt="")

        np.testing.assert_array_equal(unnormalized(model, TEXTS), wanted("query : "))
        for name, text in (("red", "the red "), (None, ""), ("query", "query : ")):  # the encoder is there already
            model.default_prompt_name = name
            found = unnormalized(model, TEXTS)
            np.testing.assert_array_equal(found, wanted(text))
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            np.testing.assert_allclose(found / lengths, model.encode(TEXTS), rtol=0, atol=1e-6)
            np.testing.assert_array_equal(unnormalized(model, TEXTS, role="document"), wanted(""))
            np.testing.assert_array_equal(unnormalized(model, TEXTS, prompt_name="red"), wanted("the red "))
        model.default_prompt_name = None
        model.prompts = {"new": "new : "}
        np.testing.assert_array_equal(unnormalized(model, TEXTS, prompt_name="new"), wanted("new : "))
    with EmbeddingModel(tmp_path / "m", threads=1) as model:
        model.default_prompt_name = "red"  # before it is there
        np.testing.assert_array_equal(unnormalized(model, TEXTS), unnormalized(model, TEXTS, prompt="the red "))


@pytest.mark.parametrize("options", [{}, {"external_data": True}], ids=["inside", "external"])
def test_they_are_those_of_the_checkpoint(
    checkpoint: Path, reference: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    from fastembed_rt_export.pipeline import ExportOptions, export

    export(str(checkpoint), ExportOptions(output=tmp_path / "m", verify=False, **options))
    for target in (None, "portable"):
        with EmbeddingModel(tmp_path / "m", target=target, threads=1) as model:
            before = model.encode(TEXTS)
            found = unnormalized(model, TEXTS)
            np.testing.assert_allclose(found, reference, rtol=0, atol=2e-5)
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            np.testing.assert_allclose(found / lengths, before, rtol=0, atol=1e-6)
            np.testing.assert_array_equal(model.encode(TEXTS), before)


def test_an_onnxruntime_that_reads_weights_by_path_alone_is_told(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those before 1.24."""
    quick(checkpoint, tmp_path / "model", external_data=True)
    monkeypatch.delattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory")
    with (
        EmbeddingModel(tmp_path / "model") as model,
        pytest.raises(MissingDependencyError, match=r"normalization need onnxruntime 1\.24 or newer, and this is"),
    ):
        unnormalized(model, TEXTS[:1])


def test_of_int8_they_have_the_same_directions(checkpoint: Path, tmp_path: Path) -> None:
    from fastembed_rt_export.pipeline import ExportOptions, export

    export(str(checkpoint), ExportOptions(output=tmp_path / "m", verify=False, precisions=("int8",), min_cosine=-1.0))
    with EmbeddingModel(tmp_path / "m", threads=1) as model:
        assert model.precision == "int8"
        found = unnormalized(model, TEXTS)
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        np.testing.assert_allclose(found / lengths, model.encode(TEXTS), rtol=0, atol=1e-6)
        assert np.abs(lengths - 1).min() > 0.1


def graph(*nodes: Any) -> bytes:
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
    )
    content: bytes = helper.make_model(made).SerializeToString()
    return content


def test_a_graph_that_ends_with_something_else_is_refused() -> None:
    reduced = helper.make_node("ReduceL2", ["x"], ["length"], axes=[-1], keepdims=1)
    other = helper.make_node("ReduceL1", ["x"], ["length"], axes=[-1], keepdims=1)
    divided = helper.make_node("Div", ["x", "length"], ["y"])
    content, name = with_unnormalized(graph(reduced, divided), "y")
    assert name == "x"
    assert [entry.name for entry in onnx.load_model_from_string(content).graph.output] == ["y", "x"]
    passed = helper.make_node("Div", ["x", "length"], ["z"]), helper.make_node("Identity", ["z"], ["y"])
    assert with_unnormalized(graph(reduced, *passed), "y")[1] == "x"
    for nodes in ([other, divided], [helper.make_node("Relu", ["x"], ["y"])]):
        with pytest.raises(ModelFormatError, match="--no-normalize"):
            with_unnormalized(graph(*nodes), "y")
