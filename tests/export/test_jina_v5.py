"""jina-embeddings-v5 as it is published, beside peft on transformers' model: each task, prompts, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from checkpoints import TEXTS, change_json, save_transformers, write_json
from exports import quick
from jina_checkpoints import V5_PROMPTS as PROMPTS
from jina_checkpoints import as_v5
from tokenizers import Tokenizer
from tolerances import close

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError
from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, check_again, export

peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'fastembed-rt[test]'")

TASKS = ("retrieval", "text-matching")
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BACKBONES = {"small": "qwen3", "nano": "eurobert"}


def published(folder: Path, size: str) -> tuple[Path, Path]:
    """A checkpoint, and the model that it was made of."""
    plain = save_transformers(folder / "plain", BACKBONES[size])
    checkpoint = save_transformers(folder / "jina-embeddings-v5", BACKBONES[size])
    for seed, task in enumerate(TASKS):
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=TARGETS, init_lora_weights=False)
        made = peft.get_peft_model(transformers.AutoModel.from_pretrained(plain).float(), config)
        made.save_pretrained(str(checkpoint / "adapters" / task))
    as_v5(checkpoint, TASKS, encoder=size == "nano")
    return checkpoint, plain


def wanted(checkpoint: Path, plain: Path, task: str, prompt: str) -> npt.NDArray[Any]:
    """The last token's state, normalized, text by text."""
    model = transformers.AutoModel.from_pretrained(plain).float()
    model = peft.PeftModel.from_pretrained(model, str(checkpoint / "adapters" / task)).eval()
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    most = json.loads((checkpoint / "config.json").read_text())["max_position_embeddings"]
    tokenizer.enable_truncation(most)
    vectors = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer.encode(prompt + text).ids])
        with torch.no_grad():
            state = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0, -1]
        vectors.append(np.asarray(torch.nn.functional.normalize(state, dim=-1)))
    return np.stack(vectors)


@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("size", BACKBONES)
def test_a_task(size: str, tmp_path: Path) -> None:
    checkpoint, plain = published(tmp_path, size)
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "onnx", adapter="retrieval")).manifest
    assert (made.parity["status"], made.source.model_type) == ("passed", BACKBONES[size])
    assert made.source.adapter is not None
    assert made.source.adapter.folder == "retrieval"
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode_query(TEXTS), wanted(checkpoint, plain, "retrieval", PROMPTS["query"]))
        documents = wanted(checkpoint, plain, "retrieval", PROMPTS["document"])
        close(model.encode_document(TEXTS), documents)
        close(model.encode(TEXTS), documents)
    again = check_again(tmp_path / "onnx", str(checkpoint), ExportOptions(), lambda _: None)
    assert again.parity["status"] == "passed"


def test_a_task_for_each_role(tmp_path: Path) -> None:
    checkpoint, plain = published(tmp_path, "small")
    quick(checkpoint, tmp_path / "onnx", adapter="query=retrieval,document=text-matching")
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode_query(TEXTS), wanted(checkpoint, plain, "retrieval", PROMPTS["query"]))
        close(model.encode_document(TEXTS), wanted(checkpoint, plain, "text-matching", PROMPTS["document"]))


def test_a_default_task(tmp_path: Path) -> None:
    checkpoint, plain = published(tmp_path, "small")
    write_json(checkpoint / "sentence_bert_config.json", {"model_args": {"default_task": "text-matching"}})
    quick(checkpoint, tmp_path / "onnx")
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode_query(TEXTS), wanted(checkpoint, plain, "text-matching", PROMPTS["query"]))


def test_its_code_takes_no_text_without_a_task(tmp_path: Path) -> None:
    checkpoint, _ = published(tmp_path, "small")
    with pytest.raises(UnsupportedCheckpointError, match="task's adapter with --adapter: retrieval, text-matching"):
        quick(checkpoint, tmp_path / "onnx")
    with pytest.raises(InvalidInputError, match=r"no adapter in 'separation'.*there are retrieval, text-matching"):
        quick(checkpoint, tmp_path / "onnx", adapter="separation")
    change_json(checkpoint / "config.json", model_type="qwen3")
    with pytest.raises(UnsupportedCheckpointError, match=r"custom_st\.Transformer, code of the checkpoint's own"):
        quick(checkpoint, tmp_path / "onnx", adapter="retrieval")
