"""Token types of texts in what is traced: those that the tokenizer gives them, by their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from tokenizers import Tokenizer
from typed_tokenizers import tokenizer_with

from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.graph.graph import FLOAT, INT64, Graph
from fastembed_rt_export.graph.ops import Ops
from fastembed_rt_export.graph.portable import PORTABLE
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.traced import optimum_export, torch_model
from fastembed_rt_export.traced.token_types import TokenTypes
from fastembed_rt_export.traced.tracing import STATES

# Templates of single texts as families have them, and the rule that each is.
TEMPLATES = {
    "[CLS]:0 $A:0 [SEP]:0": TokenTypes(),
    "$A:0 [SEP]:0 [CLS]:2": TokenTypes(last=(2,)),  # XLNet's
    "[CLS]:2 $A:0 [SEP]:0": TokenTypes(first=(2,)),  # Funnel's
    "[CLS]:1 $A:1 [SEP]:1": TokenTypes(between=1),
    "[CLS]:3 $A:1 [SEP]:0 [SEP]:2": TokenTypes((3,), 1, (0, 2)),
}


class Model:
    """What takes token types."""

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> None: ...


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_traced_model_is_given_the_types_that_its_tokenizer_makes(tmp_path: Path, template: str) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    names, types = torch_model.given(tokenizer_with(tmp_path, template), Model())
    assert names == ["input_ids", "attention_mask", "token_type_ids"]
    assert types == TEMPLATES[template]
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in ("a cat", "the old dog sleeps under a tree and the river runs"):
        expected = tokenizer.encode(text).type_ids
        np.testing.assert_array_equal(types(np.ones((1, len(expected)), np.int64))[0], expected)


@pytest.mark.parametrize("types", TEMPLATES.values(), ids=str)
def test_a_graph_gives_the_same_types_to_texts_of_any_length(tmp_path: Path, types: TokenTypes) -> None:
    graph = Graph(18)
    tokens = PORTABLE.enter(graph, False)
    graph.output(types.nodes(graph, tokens), "made", INT64, ("batch", "sequence"))
    write(graph, tmp_path, "types.onnx", name="types", metadata={})
    session = onnxruntime.InferenceSession(str(tmp_path / "types.onnx"), providers=["CPUExecutionProvider"])
    mask = (np.arange(9) < np.array([9, 4, 1, 6])[:, None]).astype(np.int64)
    feeds = {"input_ids": np.arange(36).reshape(4, 9), "attention_mask": mask}
    (found,) = session.run(None, {entry.name: feeds[entry.name] for entry in session.get_inputs()})
    np.testing.assert_array_equal(found * mask, types(mask) * mask)


def test_a_traced_graph_that_asks_for_types_gets_those_of_its_tokenizer(tmp_path: Path) -> None:
    words, kinds = (np.random.default_rng(k).standard_normal((40, 6)).astype(np.float32) for k in range(2))
    names = ("input_ids", "attention_mask", "token_type_ids")
    traced = helper.make_graph(
        [
            helper.make_node("Gather", ["words", "input_ids"], ["x"], name="x"),
            helper.make_node("Gather", ["kinds", "token_type_ids"], ["y"], name="y"),
            helper.make_node("Add", ["x", "y"], [STATES], name="sum"),
        ],
        "traced",
        [helper.make_tensor_value_info(name, INT64, ("b", "s")) for name in names],
        [helper.make_tensor_value_info(STATES, FLOAT, None)],
        [numpy_helper.from_array(words, "words"), numpy_helper.from_array(kinds, "kinds")],
    )
    model = helper.make_model(traced, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    graph, types = Graph(18), TokenTypes(last=(0, 2))
    states = optimum_export._append(Ops(graph, PORTABLE, PORTABLE.enter(graph, False)), model, types)
    graph.output(states, "made", FLOAT, ("b", "s", "h"))
    write(graph, tmp_path, "made.onnx", name="made", metadata={})
    session = onnxruntime.InferenceSession(str(tmp_path / "made.onnx"), providers=["CPUExecutionProvider"])
    ids, mask = np.arange(10).reshape(2, 5), np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    (found,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    shown = mask.astype(bool)
    np.testing.assert_array_equal(found[shown], (words[ids] + kinds[[[0, 0, 0, 0, 2], [0, 0, 2, 0, 0]]])[shown])


def test_types_that_follow_no_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TokenTypes.learned([[0, 1, 0, 1, 0, 0, 0], [0, 1, 0], [1]]) is None
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    monkeypatch.setattr(TokenTypes, "learned", lambda _: None)
    with pytest.raises(UnsupportedCheckpointError, match=r"gives the tokens of 'a' the types \[0, 0, 2\]"):
        torch_model.given(tokenizer_with(tmp_path, "$A:0 [SEP]:0 [CLS]:2"), Model())
