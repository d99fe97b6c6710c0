"""Checkpoints of Jina's own code for XLM-RoBERTa beside a model on torch: adapters by task and role, prompts, heads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import TEXTS, change_json, write_json
from exports import quick
from jina_checkpoints import (
    ABSOLUTE,
    PASSAGE,
    QUERY,
    TASKS,
    batch_of,
    reference,
    save,
    save_embedder,
    wanted,
)
from safetensors.torch import load_file, save_file
from tolerances import close

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, native
from fastembed_rt.cli import main
from fastembed_rt.errors import FastembedRtError, InvalidInputError
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, check_again, export

ROLES = "query=retrieval.query,document=retrieval.passage"
PLAIN: dict[str, Any] = {"lora_adaptations": None, "task_instructions": None}
CLASSIFIER: dict[str, Any] = {
    "architectures": ["XLMRobertaForSequenceClassification"],
    "num_labels": 1,
    "id2label": {"0": "LABEL_0"},
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As jina-embeddings-v3 is published."""
    return save_embedder(tmp_path_factory.mktemp("jina") / "jina-embeddings-v3")


def refusal(checkpoint: Path, kind: type[FastembedRtError], **options: Any) -> str:
    """The message, in one line, of an export that does not happen."""
    output = checkpoint.parent / "refused"
    with pytest.raises(kind) as caught:
        quick(checkpoint, output, **options)
    assert type(caught.value) is kind
    assert not output.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def in_shards(checkpoint: Path) -> list[Path]:
    """The weights of a checkpoint in two files, the second with the adapters of feed-forward layers."""
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    second = {name for name in tensors if "mlp" in name}
    assert any("lora" in name for name in second)
    places = {name: f"model-0000{1 + (name in second)}-of-00002.safetensors" for name in tensors}
    files = [checkpoint / name for name in sorted(set(places.values()))]
    for file in files:
        save_file({name: tensors[name] for name in tensors if places[name] == file.name}, file, {"format": "pt"})
    write_json(checkpoint / "model.safetensors.index.json", {"weight_map": places})
    return files


# --- adapters by task ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", [0, 1])
def test_an_adapter_is_known_by_every_file_that_holds_a_part_of_it(tmp_path: Path, shard: int) -> None:
    checkpoint = save_embedder(tmp_path / "jina")
    file = in_shards(checkpoint)[shard]
    first = quick(checkpoint, tmp_path / "first", adapter="retrieval.query").source
    with EmbeddingModel(tmp_path / "first") as model:
        whole = save_embedder(tmp_path / "whole")
        close(model.encode(TEXTS), wanted(whole, TEXTS, "retrieval.query", QUERY))
    tensors = load_file(file)
    changed = next(name for name in tensors if name.endswith("0.lora_A"))
    save_file({**tensors, changed: tensors[changed] + 1}, file, {"format": "pt"})
    second = quick(checkpoint, tmp_path / "second", adapter="retrieval.query").source
    assert first.adapter is not None and second.adapter is not None
    assert first.adapter.sha256 != second.adapter.sha256
    assert first.sha256 != second.sha256


def test_without_a_task_as_the_code_has_it_without_one(published: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = ExportOptions(output=tmp_path / "onnx", verify=False)
    made = export(str(published), options, said.append).manifest
    assert any("holds the adapters retrieval.query, retrieval.passage" in line for line in said)
    assert any("--adapter query=NAME,document=NAME" in line for line in said)
    assert any("none of the adapters" in note for note in made.notes)
    assert made.source.adapter is None
    assert (made.prompts["retrieval.query"], made.default_prompt_name) == (QUERY, None)
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode(TEXTS), wanted(published, TEXTS))
        close(model.encode(TEXTS, prompt_name="retrieval.query"), wanted(published, TEXTS, None, QUERY))


@pytest.mark.parametrize("task", TASKS)
def test_each_task(published: Path, task: str, tmp_path: Path) -> None:
    made = quick(published, tmp_path / "onnx", adapter=task)
    prompt = {"retrieval.query": QUERY, "retrieval.passage": PASSAGE}.get(task, "")
    assert made.source.adapter is not None
    assert made.source.adapter.folder == task
    expected, plain = wanted(published, TEXTS, task, prompt), wanted(published, TEXTS)
    assert np.abs(expected - plain).max() > 0.01
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode(TEXTS), expected)  # with its prompt, as the code's own encode(task=) puts it
        close(model.encode(TEXTS, prompt=""), wanted(published, TEXTS, task))
        if prompt:
            role = "query" if task == "retrieval.query" else "document"
            close(getattr(model, f"encode_{role}")(TEXTS), expected)
        others = {name for name in TASKS if name != task}
        assert not others & set(made.prompts)


def test_a_default_task(tmp_path: Path) -> None:
    """Which fine-tuned models name in the settings of their transformer."""
    checkpoint = save_embedder(tmp_path / "tuned")
    settings = {"max_seq_length": 20, "model_args": {"default_task": "separation", "use_flash_attn": False}}
    write_json(checkpoint / "sentence_bert_config.json", settings)
    made = quick(checkpoint, tmp_path / "onnx")
    assert (made.source.adapter and made.source.adapter.folder, made.max_length) == ("separation", 20)
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode(TEXTS[:3]), wanted(checkpoint, TEXTS[:3], "separation"))


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "transformers_modules.jinaai.jina-embeddings-v3.ab036b02.custom_st.Transformer"},
        {"type": "sentence_transformers.models.Transformer"},
    ],
)
def test_as_fine_tuned_models_are_saved(changes: dict[str, str], tmp_path: Path) -> None:
    checkpoint = save_embedder(tmp_path / "tuned", architectures=["XLMRobertaLoRA"], hidden_act="gelu_new")
    modules = json.loads((checkpoint / "modules.json").read_text())
    write_json(checkpoint / "modules.json", [{**modules[0], **changes}, *modules[1:]])
    quick(checkpoint, tmp_path / "onnx", adapter="classification")
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode(TEXTS), wanted(checkpoint, TEXTS, "classification"))


def test_another_rank_and_scale_and_base_of_the_positions(tmp_path: Path) -> None:
    checkpoint = save_embedder(tmp_path / "jina", lora_rank=3, lora_alpha=5, rotary_emb_base=700.0)
    quick(checkpoint, tmp_path / "onnx", adapter="separation")
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode(TEXTS), wanted(checkpoint, TEXTS, "separation"))


def test_a_table_of_positions_is_not_adapted(tmp_path: Path) -> None:
    checkpoint = save_embedder(tmp_path / "jina", position_embedding_type="absolute")
    quick(checkpoint, tmp_path / "onnx", adapter="separation")
    short = [text for text in TEXTS if len(text) < 60]
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode(short), wanted(checkpoint, short, "separation"))


def test_a_plain_directory(tmp_path: Path) -> None:
    """As transformers' AutoModel saves it: without modules.json."""
    checkpoint = save(tmp_path / "plain")
    quick(checkpoint, tmp_path / "onnx", adapter="text-matching")
    with EmbeddingModel(tmp_path / "onnx") as model:
        found = model.encode(TEXTS, normalize=True)
    close(found, wanted(checkpoint, TEXTS, "text-matching"))
    assert "no modules.json" in refusal(checkpoint, UnsupportedCheckpointError, adapter=ROLES)


# --- adapters by role ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_role(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("roles") / "onnx"
    precisions = ("fp32", *(("bf16",) if native.kernels() else ()), "int8")
    quick(published, output, adapter=ROLES, precisions=precisions, min_cosine=0.5)
    return output


def test_queries_and_documents_have_their_adapter_and_prompt(published: Path, by_role: Path) -> None:
    queries = wanted(published, TEXTS, "retrieval.query", QUERY)
    documents = wanted(published, TEXTS, "retrieval.passage", PASSAGE)
    with EmbeddingModel(by_role) as model:
        close(model.encode_query(TEXTS), queries)
        close(model.encode_document(TEXTS), documents)
        close(model.encode(TEXTS), documents)
        assert model.manifest.prompts == {"query": QUERY, "document": PASSAGE}
    with EmbeddingModel(by_role, target="portable") as model:
        close(model.encode_query(TEXTS), queries)


@pytest.mark.parametrize(("precision", "worst"), [("bf16", 0.999), ("int8", 0.9)])
def test_other_precisions_of_both_roles(published: Path, by_role: Path, precision: str, worst: float) -> None:
    if precision == "bf16" and not native.kernels():
        pytest.skip("bf16 is computed by our own operators, which are not here")
    with EmbeddingModel(by_role, precision=precision) as model:
        for found, task, prompt in (
            (model.encode_query(TEXTS), "retrieval.query", QUERY),
            (model.encode_document(TEXTS), "retrieval.passage", PASSAGE),
        ):
            expected = wanted(published, TEXTS, task, prompt)
            assert float((found * expected).sum(-1).min()) > worst
            assert np.abs(found - wanted(published, TEXTS)).max() > 0.01


def test_the_command_line(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", str(published), "-o", str(tmp_path / "onnx"), "--no-verify", "--adapter"]
    assert main([*command, ROLES]) == 0
    said = capsys.readouterr()
    assert "merging the adapter retrieval.query into jina-embeddings-v3 for query texts" in said.err + said.out
    assert main([*command, "query=retrieval.query"]) == InvalidInputError.exit_code
    assert "named for both, as query=NAME,document=NAME" in capsys.readouterr().err


def test_the_name_of_the_output_names_the_adapters(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = export(str(published), ExportOptions(adapter=ROLES, verify=False))
    assert done.directory == Path("jina-embeddings-v3-retrieval.query-retrieval.passage-onnx")


# --- the gate --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("adapter", [None, "retrieval.query", ROLES])
def test_the_gate_compares_with_the_class_of_transformers(published: Path, adapter: str | None, tmp_path: Path) -> None:
    """With its own class for the same maths, in which all weights are set."""
    done = export(str(published), ExportOptions(output=tmp_path / "onnx", adapter=adapter))
    report = done.manifest.parity
    assert report["status"] == "passed"
    assert "all weights as read at export" in report["reference"]
    again = check_again(tmp_path / "onnx", str(published), ExportOptions(), lambda _: None)
    assert again.parity["status"] == "passed"
    assert again.source.adapter == done.manifest.source.adapter


def test_the_model_of_these_tests_is_that_of_transformers(published: Path) -> None:
    """Of a task's weights, in transformers' class by the names of its own conversion."""
    from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model

    ours = reference(published)
    ours.set_task("retrieval.passage")
    config = json.loads((published / "config.json").read_text())
    keys = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = {key: config[key] for key in (*keys, "max_position_embeddings", "type_vocab_size", "layer_norm_eps")}
    rope = {"rope_type": "default", "rope_theta": config["rotary_emb_base"]}
    theirs = JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**sizes, rope_parameters=rope)).eval()
    state = {}
    roberta = ours.roberta
    for name, module in (("word", "word_embeddings"), ("token_type", "token_type_embeddings")):
        state[f"embeddings.{name}_embeddings.weight"] = roberta.embeddings[module].weight
    for kind in ("weight", "bias"):
        state[f"embeddings.LayerNorm.{kind}"] = getattr(roberta.emb_ln, kind)
        state[f"pooler.dense.{kind}"] = getattr(roberta.pooler["dense"], kind)
        for k, layer in enumerate(roberta.encoder["layers"]):
            parts = getattr(layer.mixer.Wqkv, kind).chunk(3)
            named = {f"self_attn.{part}_proj": tensor for part, tensor in zip("qkv", parts, strict=True)}
            named["self_attn.o_proj"] = getattr(layer.mixer.out_proj, kind)
            named |= {f"mlp.{fc}": getattr(getattr(layer.mlp, fc), kind) for fc in ("fc1", "fc2")}
            named |= {"post_attention_layernorm": getattr(layer.norm1, kind)}
            named |= {"post_mlp_layernorm": getattr(layer.norm2, kind)}
            state |= {f"layers.{k}.{name}.{kind}": tensor for name, tensor in named.items()}
    theirs.load_state_dict(state)
    ids, mask = batch_of(published, TEXTS)
    with torch.no_grad():
        found, expected = ours(ids, mask), theirs(ids, mask).last_hidden_state
    close(np.asarray(found[mask.bool()]), np.asarray(expected[mask.bool()]))


# --- models of that code without adapters ----------------------------------------------------------------------------


@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({**ABSOLUTE, "model_type": "absent"}, id="as jina-reranker-v2 is published"),
        pytest.param(PLAIN, id="rotary"),
    ],
)
def test_a_reranker(changes: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "reranker", **CLASSIFIER, **changes)
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "onnx")).manifest
    assert (made.task, made.parity["status"]) == ("reranking", "passed")
    pairs = [("a dog runs", text) for text in TEXTS[:4]]
    with Reranker(tmp_path / "onnx") as model, torch.no_grad():
        found = model.predict(pairs, activation="identity")
        expected = reference(checkpoint).logits(*batch_of(checkpoint, pairs, made.max_length))[:, 0]
    close(np.asarray(found)[:, None], np.asarray(expected)[:, None])


@pytest.mark.usefixtures("short_gate")
def test_late_interaction(tmp_path: Path) -> None:
    """As jina-colbert-v2 is published: Stanford's layout around that code."""
    torch.manual_seed(4)
    projection = torch.randn(8, 24)
    checkpoint = save(
        tmp_path / "colbert", architectures=["HF_ColBERT"], tensors={"linear.weight": projection}, **PLAIN
    )
    said = {"query_token_id": "1", "doc_token_id": "2", "query_maxlen": 12, "doc_maxlen": 30, "mask_punctuation": False}
    write_json(checkpoint / "artifact.metadata", said)
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "onnx")).manifest
    assert (made.task, made.parity["status"]) == ("late_interaction", "passed")
    ids, mask = batch_of(checkpoint, ["2 a cat runs"])
    with LateInteractionModel(tmp_path / "onnx") as model, torch.no_grad():
        found = model.encode_document("a cat runs")
        states = reference(checkpoint)(ids, mask)[0] @ projection.to(torch.bfloat16).float().T
    close(found, np.asarray(torch.nn.functional.normalize(states, dim=-1)))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"position_embedding_type": "alibi"}, UnsupportedCheckpointError, "position_embedding_type 'alibi'"),
        ({"rotary_emb_interleaved": True}, UnsupportedCheckpointError, "rotary_emb_interleaved True"),
        ({"rotary_emb_scale_base": 512}, UnsupportedCheckpointError, "rotary_emb_scale_base 512"),
        ({"rotary_emb_dim": 4}, UnsupportedCheckpointError, "rotary_emb_dim 4"),
        ({"hidden_act": "relu"}, CheckpointError, "hidden_act 'relu', which its code refuses"),
        ({"layer_norm_eps": None}, CheckpointError, "has no layer_norm_eps"),
        ({"lora_rank": 4}, CheckpointError, "with 5 tasks of rank 4 expected are floats of (5, 1, 4)"),
        ({"lora_alpha": None}, CheckpointError, "lora_alpha None"),
        ({"lora_adaptations": ["separation"]}, CheckpointError, "with 1 tasks of rank 2"),
        ({"lora_adaptations": "separation"}, CheckpointError, "expected names of tasks"),
        ({"task_instructions": "query: "}, CheckpointError, "task_instructions 'query: ', expected texts by task"),
        ({"vocab_size": "64"}, CheckpointError, "vocab_size '64', expected a whole number above 0"),
        ({"num_attention_heads": 0}, CheckpointError, "num_attention_heads 0, expected a whole number above 0"),
        ({"architectures": 1}, CheckpointError, "architectures 1, expected names of classes"),
        ({"initializer_range": "\ud800"}, CheckpointError, "config.json cannot be read as JSON"),
    ],
)
def test_settings_that_do_not_fit(
    changes: dict[str, Any], kind: type[FastembedRtError], words: str, tmp_path: Path
) -> None:
    checkpoint = save_embedder(tmp_path / "jina")
    change_json(checkpoint / "config.json", **changes)
    assert words in refusal(checkpoint, kind, adapter="separation")


def test_prompts_that_are_none(tmp_path: Path) -> None:
    checkpoint = save_embedder(tmp_path / "jina")
    change_json(checkpoint / "config_sentence_transformers.json", prompts=["query: "])
    assert "prompts that are not texts by name" in refusal(checkpoint, CheckpointError, adapter="separation")


def test_an_adapter_that_there_is_not(published: Path, tmp_path: Path) -> None:
    message = refusal(published, InvalidInputError, adapter="retrieval")
    assert "no adapter 'retrieval'; there are retrieval.query, retrieval.passage, separation" in message
    assert "leave --base out" in refusal(published, InvalidInputError, adapter="separation", base="x/y")
    message = refusal(save(tmp_path / "none", **PLAIN), InvalidInputError, adapter="separation")
    assert "no adapter 'separation'; it holds none" in message
    fresh = save(tmp_path / "fresh", **PLAIN)
    change_json(fresh / "config.json", lora_adaptations=["separation"], load_trained_adapters=False)
    assert "no tensors of adapters" in refusal(fresh, CheckpointError, adapter="separation")


@pytest.mark.parametrize("left", ["lora_A", "lora_B", "original"])
def test_tensors_that_are_missing(left: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    checkpoint = save_embedder(tmp_path / "jina")
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    (name,) = [name for name in tensors if "layers.1.mlp.fc1" in name and name.endswith(left)]
    del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    assert "roberta.encoder.layers.1.mlp.fc1" in refusal(checkpoint, CheckpointError, adapter="separation")
