"""Embedders with code of their own for a model type that transformers knows: built as it computes, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from checkpoints import (
    TEXTS,
    change_json,
    change_tensors,
    exported_vectors,
    random_model,
    reference_vectors,
    save_sentence_transformers,
)
from tolerances import close

from fastembed_rt import EmbeddingModel
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")

QWEN = "Alibaba-NLP/gte-Qwen2-7B-instruct--modeling_qwen.Qwen2Model"
GRIT = "modeling_gritlm7b.MistralModel"
VOYAGE = {
    "architectures": ["Qwen3ForCausalLM"],
    "auto_map": {"AutoModel": "modeling_qwen3_bidirectional.Qwen3BidirectionalModel"},
    "num_labels": 40,
}
PROMPT = "the new red "


def refused(source: Path, output: Path, words: str, error: type[Exception] = UnsupportedCheckpointError) -> None:
    with pytest.raises(error, match=words):
        export(str(source), ExportOptions(output=output))


# --- gte-Qwen2, inf-retriever ----------------------------------------------------------------------------------------


def test_qwen_that_does_not_say_what_its_tokens_see_is_refused(tmp_path: Path) -> None:
    """gte-Qwen2-7B-instruct: in its own code they see all, in transformers' class those before them."""
    source = save_sentence_transformers(tmp_path / "source", "qwen2", pooling="lasttoken")
    change_json(source / "config.json", auto_map={"AutoModel": QWEN})
    refused(source, tmp_path / "made", r'Qwen2Model\), versions of which.*"is_causal": false.*--trust-remote-code')


@pytest.mark.parametrize("is_causal", [False, True])
def test_qwen_that_says_so_is_compared_with_transformers_class(tmp_path: Path, is_causal: bool) -> None:
    source = save_sentence_transformers(tmp_path / "source", "qwen2", pooling="lasttoken", is_causal=is_causal)
    wanted = reference_vectors(source)
    change_json(source / "config.json", auto_map={"AutoModel": QWEN}, is_causal=is_causal)
    made = export(str(source), ExportOptions(output=tmp_path / "made")).manifest
    assert made.parity["status"] == "passed"
    assert [note for note in made.notes if QWEN in note]
    with EmbeddingModel(tmp_path / "made") as model:
        close(model.encode(TEXTS), wanted)


# --- GritLM ----------------------------------------------------------------------------------------------------------


def grit_vectors(source: Path, texts: list[str], prompt: str) -> npt.NDArray[np.float32]:
    """GritLM's: tokens that see all others, the mean of those behind the instruction, of unit length."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.MistralModel.from_pretrained(source).float().eval()
    before = len(tokenizer(prompt)["input_ids"]) - 1  # GritLM's own tokenizer ends no text
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(prompt + text)["input_ids"]])
        unseen = torch.zeros(1, 1, 1, ids.shape[1])
        with torch.inference_mode():
            states = model.embed_tokens(ids)
            turns = model.rotary_emb(states, torch.arange(ids.shape[1])[None])
            for layer in model.layers:
                given = layer.input_layernorm(states)
                states = states + layer.self_attn(given, position_embeddings=turns, attention_mask=unseen)[0]
                states = states + layer.mlp(layer.post_attention_layernorm(states))
            pooled = model.norm(states)[0, before:].mean(dim=0)
        found.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
    return np.array(found)


def test_gritlm_is_refused_until_config_json_says_what_its_library_asks_for(tmp_path: Path) -> None:
    """Its code leaves open, to each call, whether tokens see all others, and has no windows where they do."""
    prompts = {"query": PROMPT}
    source = save_sentence_transformers(
        tmp_path / "source", "mistral", prompts=prompts, include_prompt=False, sliding_window=4
    )
    advice = r'MistralModel\), whose vectors.*"is_causal": false and "sliding_window": null'
    for said in ({}, {"is_causal": False}, {"sliding_window": None}, {"is_causal": True, "sliding_window": None}):
        change_json(source / "config.json", auto_map={"AutoModel": GRIT}, **{"sliding_window": 4, **said})
        refused(source, tmp_path / "made", advice)
        change_json(source / "config.json", "is_causal")
    change_json(source / "config.json", "sliding_window", is_causal=False)  # transformers has windows of 4096 then
    refused(source, tmp_path / "made", advice)
    change_json(source / "config.json", is_causal=False, sliding_window=None)
    assert export(str(source), ExportOptions(output=tmp_path / "made")).manifest.parity["status"] == "passed"
    texts = [text for text in TEXTS if 0 < len(text) < 50]
    with EmbeddingModel(tmp_path / "made") as model:
        close(model.encode(texts, prompt_name="query"), grit_vectors(source, texts, PROMPT))


# --- voyage-4-nano ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "lasttoken"])
def test_voyages_class_is_built_with_the_layer_behind_it(tmp_path: Path, pooling: str) -> None:
    """As it is published: of a causal model's name, its vectors' size where others have a number of labels."""
    prompts = {"query": PROMPT}
    source = save_sentence_transformers(tmp_path / "source", "qwen3_bidirectional", pooling=pooling, prompts=prompts)
    wanted = reference_vectors(source)
    change_json(source / "config.json", "id2label", "label2id", **VOYAGE)
    close(reference_vectors(source), wanted)
    options = ExportOptions(output=tmp_path / "made", trust_remote_code=True)
    made = export(str(source), options).manifest
    assert made.parity["status"] == "passed"
    assert made.dim == 40
    with EmbeddingModel(tmp_path / "made") as model:
        close(model.encode(TEXTS), wanted)
    # Nobody is asked to run its code, which later versions of transformers do not run.
    close(exported_vectors(source, tmp_path / "untrusted"), wanted)


def test_voyages_class_without_its_layer_is_refused(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", "qwen3_bidirectional")
    change_tensors(source, lambda tensors: tensors.pop("linear.weight"))
    refused(source, tmp_path / "made", r"missing: linear\.weight", CheckpointError)


@pytest.mark.parametrize("said", [None, False])
def test_a_class_of_the_same_name_without_voyages_switch_is_unknown(tmp_path: Path, said: Any) -> None:
    source = save_sentence_transformers(tmp_path / "source", "qwen3_bidirectional")
    change_json(source / "config.json", use_bidirectional_attention=said)
    refused(source, tmp_path / "made", r"Qwen3BidirectionalModel\), and nothing is known")


# --- GTE under transformers' name ------------------------------------------------------------------------------------


def test_gtes_code_under_transformers_name_is_compared_with_its_class(tmp_path: Path) -> None:
    """snowflake-arctic-embed-m-v2.0: the tensors have the names that the hub's code gives them."""
    source = save_sentence_transformers(tmp_path / "source", "new", rope_scaling=None, type_vocab_size=1)
    wanted = reference_vectors(source)
    (source / "modeling_new.py").unlink()
    code = {"AutoModel": "modeling_hf_alibaba_nlp_gte.GteModel"}
    change_json(source / "config.json", model_type="gte", architectures=["GteModel"], auto_map=code)
    made = export(str(source), ExportOptions(output=tmp_path / "made")).manifest
    assert made.parity["status"] == "passed"
    with EmbeddingModel(tmp_path / "made") as model:
        close(model.encode(TEXTS), wanted)


def test_the_references_are_not_those_of_transformers_classes(tmp_path: Path) -> None:
    """Else the tests above would hold for what was built before, too."""
    both = save_sentence_transformers(tmp_path / "both", "qwen2", pooling="lasttoken", is_causal=False)
    causal = save_sentence_transformers(tmp_path / "causal", "qwen2", pooling="lasttoken")
    assert np.abs(reference_vectors(both) - reference_vectors(causal)).max() > 1e-2
    assert random_model("qwen3_bidirectional").linear.weight.shape == (40, 24)
