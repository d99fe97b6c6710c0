"""What the ONNX back end of text-embeddings-inference reads is there, in the types that it parses strictly.

After its source: `router/src/lib.rs` (ModelConfig, PoolConfig, STConfig, NewSTConfig, get_backend_model_type),
`backends/ort/src/lib.rs` (Config, TokenizerConfig, OrtBackend) and `core/src/download.rs`. It is not run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from checkpoints import change_json, save_sentence_transformers
from cross_encoders import save_cross_encoder
from exports import quick

POOLINGS = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "lasttoken": "pooling_mode_lasttoken"}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def whole(value: Any) -> bool:
    """A serde usize."""
    return type(value) is int and value >= 0


def assert_config(directory: Path) -> dict[str, Any]:
    """ModelConfig of the router and Config of the back end."""
    config: dict[str, Any] = read(directory / "config.json")
    assert isinstance(config["architectures"], list) and config["architectures"]
    assert isinstance(config["model_type"], str)
    assert whole(config["max_position_embeddings"]) and whole(config["pad_token_id"])
    assert whole(config["hidden_size"]) and whole(config["num_hidden_layers"])
    assert {"n_embd", "n_layer", "n_head"}.isdisjoint(config), "serde refuses a field and its alias"
    assert isinstance(config.get("auto_map", {}), dict)
    return config


def assert_graph(directory: Path, output: str) -> None:
    """`model.onnx` comes before `onnx/model.onnx`; inputs and outputs are known by name."""
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"))
    known = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
    assert {entry.name for entry in session.get_inputs()} <= known
    found = {entry.name: entry for entry in session.get_outputs()}
    assert found[output].type == "tensor(float)" and len(found[output].shape) == 2


@pytest.mark.parametrize(
    ("model_type", "pooling", "layout"),
    [
        ("bert", "mean", "hub"),
        ("bert", "lasttoken", "plain"),
        ("distilbert", "mean", "plain"),
        ("xlm-roberta", "cls", "plain"),
    ],
)
def test_an_embedding_model(tmp_path: Path, model_type: str, pooling: str, layout: str) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "mini", model_type=model_type, pooling=pooling)
    change_json(checkpoint / "config_sentence_transformers.json", prompts={"query": None, "document": "passage: "})
    described = quick(checkpoint, tmp_path / "out", layout=layout)
    out = tmp_path / "out"
    config = assert_config(out)
    assert not any(name.endswith("Classification") for name in config["architectures"])
    assert (out / "tokenizer.json").is_file()
    flags = read(out / "1_Pooling" / "config.json")
    for flag in POOLINGS.values():  # the first that is true is taken, in this order
        assert flags[flag] is (flag == POOLINGS[pooling])
    assert read(out / "sentence_bert_config.json")["max_seq_length"] == described.max_length
    prompts = read(out / "config_sentence_transformers.json")["prompts"]
    assert prompts == {"query": "", "document": "passage: "}
    assert read(out / "tokenizer_config.json").get("padding_side", "right") in ("left", "right")
    assert_graph(out, "sentence_embedding")


def test_a_reranker(tmp_path: Path) -> None:
    quick(save_cross_encoder(tmp_path / "mini"), tmp_path / "out")
    config = assert_config(tmp_path / "out")
    assert config["architectures"][0].endswith("Classification")
    assert all(isinstance(label, str) for label in config["id2label"].values())
    assert all(whole(number) for number in config["label2id"].values())
    assert_graph(tmp_path / "out", "logits")
