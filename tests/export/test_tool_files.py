"""What other tools find beside the graphs: settings that say what the graphs do, and `--layout hub`."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import routed
from checkpoints import (
    TEXTS,
    change_json,
    reference_vectors,
    save_sentence_transformers,
    save_transformers,
    save_with_heads,
)
from cross_encoders import PAIRS, reference_scores, save_cross_encoder
from exports import contents, quick
from multi_vectors import save_multi_vector
from sparse_encoders import save_splade
from tokenizers import AddedToken, Tokenizer
from tolerances import close

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel, manifest
from fastembed_rt.errors import CheckpointError
from fastembed_rt.hub.resolve import resolve_checkpoint
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt_export.checkpoint.read import Overrides
from fastembed_rt_export.errors import InvalidInputError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.gate.refusals import Refusals, left
from fastembed_rt_export.pipeline import ExportOptions, export

BESIDE = {"manifest.json", "README.md"}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def assert_named(directory: Path) -> manifest.Manifest:
    """The manifest names every file, no link leads away, and no file holds the weights of a whole torch model."""
    described = manifest.read(directory)
    assert set(contents(directory)) == {*BESIDE, *(record.file for record in described.files)}
    assert not [path for path in directory.rglob("*") if path.is_symlink()]
    whole = {"model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"}
    assert not [path for path in directory.iterdir() if path.name in whole]
    return described


def states_of(directory: Path, file: str, texts: list[str]) -> list[Any]:
    """Both outputs of a graph for texts, one by one."""
    described = manifest.read(directory)
    tokenizer = TextTokenizer(directory / "tokenizer.json", max_length=described.max_length)
    session = onnxruntime.InferenceSession(str(directory / file))
    found = []
    for ids in tokenizer(texts).ids:
        row = np.array([ids], dtype=np.int64)
        found.append(
            session.run(
                ["sentence_embedding", "last_hidden_state"], {"input_ids": row, "attention_mask": np.ones_like(row)}
            )
        )
    return found


def test_tools_find_the_settings_that_the_graph_was_made_with(tmp_path: Path) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "mini")
    change_json(checkpoint / "sentence_bert_config.json", max_seq_length=20)
    (checkpoint / "special_tokens_map.json").unlink(missing_ok=True)
    change_json(
        checkpoint / "tokenizer_config.json",
        max_length=9,
        model_max_length=512,
        auto_map={"AutoTokenizer": ["x", None]},
    )
    change_json(checkpoint / "config.json", auto_map={"AutoModel": "x.Y"}, _name_or_path="/home/somebody/model")
    quick(checkpoint, tmp_path / "out", trust_remote_code=True)  # else code of the tokenizer's own is refused
    assert_named(tmp_path / "out")
    settings = read(tmp_path / "out" / "tokenizer_config.json")
    assert settings["model_max_length"] == 20 and "max_length" not in settings and "auto_map" not in settings
    assert isinstance(settings["pad_token"], str)
    assert read(tmp_path / "out" / "special_tokens_map.json")["pad_token"] == settings["pad_token"]
    config = read(tmp_path / "out" / "config.json")
    assert (config["hidden_size"], config["model_type"]) == (24, "bert")
    assert "auto_map" not in config and "_name_or_path" not in config
    assert read(tmp_path / "out" / "sentence_bert_config.json") == {"max_seq_length": 20, "do_lower_case": False}
    modules = read(tmp_path / "out" / "modules.json")
    assert [(entry["path"], entry["type"].rpartition(".")[2]) for entry in modules[:2]] == [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
    ]


def test_they_say_what_was_changed_at_export(tmp_path: Path) -> None:
    wanted = Overrides(
        pooling=("cls",),
        normalize=True,
        max_length=11,
        prompts={"query": "Q: "},
        default_prompt_name="query",
        truncate_dim=16,
    )
    quick(save_transformers(tmp_path / "mini"), tmp_path / "out", overrides=wanted)
    pooling = read(tmp_path / "out" / "1_Pooling" / "config.json")
    assert pooling["pooling_mode_cls_token"] and not pooling["pooling_mode_mean_tokens"]
    assert [entry["type"].rpartition(".")[2] for entry in read(tmp_path / "out" / "modules.json")] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    said = read(tmp_path / "out" / "config_sentence_transformers.json")
    assert (said["prompts"], said["default_prompt_name"], said["truncate_dim"]) == ({"query": "Q: "}, "query", 16)
    assert read(tmp_path / "out" / "tokenizer_config.json")["model_max_length"] == 11


def with_weights(checkpoint: Path, output: Path) -> str:
    """An export with the checkpoint's weights beside its settings, as torch loads them."""
    for file in checkpoint.rglob("*.safetensors"):
        shutil.copyfile(file, output / file.relative_to(checkpoint))
    return str(output)


CHANGED: dict[str, Any] = {"max_length": 9, "prompts": {"query": "a red ", "document": "the new "}}


def test_sparse_encoders_say_what_was_changed_at_export(tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    checkpoint, output = save_splade(tmp_path / "mini"), tmp_path / "out"
    quick(checkpoint, output, overrides=Overrides(**CHANGED, default_prompt_name="query"))
    theirs = SparseEncoder(with_weights(checkpoint, output), device="cpu", local_files_only=True)
    with SparseModel(output) as model:
        for call in ("encode", "encode_document"):
            wanted = getattr(theirs, call)(TEXTS, convert_to_sparse_tensor=False).numpy()
            close(np.stack([vector.to_dense() for vector in getattr(model, call)(TEXTS)]), wanted)


def test_rerankers_say_what_was_changed_at_export(tmp_path: Path) -> None:
    checkpoint, output = save_cross_encoder(tmp_path / "mini"), tmp_path / "out"
    quick(checkpoint, output, overrides=Overrides(**CHANGED, default_prompt_name="query"))
    wanted = reference_scores(Path(with_weights(checkpoint, output)))
    with Reranker(output) as model:
        close(model.predict(PAIRS), wanted)


def test_late_interaction_says_what_was_changed_at_export(tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    checkpoint, output = save_multi_vector(tmp_path / "mini"), tmp_path / "out"
    quick(checkpoint, output, overrides=Overrides(**CHANGED))
    theirs = MultiVectorEncoder(with_weights(checkpoint, output), device="cpu", local_files_only=True)
    with LateInteractionModel(output) as model:
        for ours, wanted in zip(model.encode_document(TEXTS), theirs.encode_document(TEXTS), strict=True):
            close(ours, np.asarray(wanted))


def test_tools_that_add_the_special_tokens_change_no_text(tmp_path: Path) -> None:
    checkpoint = save_transformers(tmp_path / "mini")
    change_json(checkpoint / "tokenizer_config.json", "pad_token", mask_token="house")
    (checkpoint / "special_tokens_map.json").write_text('{"sep_token": "[SEP]", "cls_token": "[CLS]"}')
    quick(checkpoint, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    before = [tokenizer.encode(text).ids for text in (*TEXTS, "[PAD] [MASK] house")]
    for token in read(tmp_path / "out" / "special_tokens_map.json").values():
        tokenizer.add_special_tokens([AddedToken(**token) if isinstance(token, dict) else token])
    assert [tokenizer.encode(text).ids for text in (*TEXTS, "[PAD] [MASK] house")] == before
    padding = read(tmp_path / "out" / "tokenizer_config.json")["pad_token"]
    assert tokenizer.token_to_id(padding) is not None and padding in ("[PAD]", "[SEP]", "[UNK]")


def test_the_states_that_the_hub_layout_adds_give_the_reference_through_the_modules(tmp_path: Path) -> None:
    """As sentence-transformers takes them: its Pooling and Dense on last_hidden_state."""
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    checkpoint = save_with_heads(tmp_path / "mini")
    described = quick(checkpoint, tmp_path / "out", layout="hub")
    assert_named(tmp_path / "out")
    wanted = reference_vectors(checkpoint)
    vectors, states = zip(*states_of(tmp_path / "out", "onnx/model.onnx", TEXTS), strict=True)
    close(np.concatenate(vectors), wanted)
    tokenizer, torch_model = AutoTokenizer.from_pretrained(checkpoint), AutoModel.from_pretrained(checkpoint).eval()
    for text, state in zip(TEXTS, states, strict=True):
        inputs = tokenizer(text, truncation=True, max_length=described.max_length, return_tensors="pt")
        close(state[0], torch_model(**inputs).last_hidden_state[0].detach().numpy())
    # The folders of the export behind the checkpoint's own transformer.
    for name in ("model.safetensors",):
        (tmp_path / "out" / name).write_bytes((checkpoint / name).read_bytes())
    close(SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS), wanted)


@pytest.mark.parametrize("options", [{}, {"external_data": True}], ids=["inside", "apart"])
def test_the_hub_layout_stores_weights_once(tmp_path: Path, options: dict[str, Any]) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "mini")
    quick(checkpoint, tmp_path / "plain", **options)
    quick(checkpoint, tmp_path / "out", layout="hub", **options)
    assert_named(tmp_path / "out")
    first, second = ("model.onnx.data", "onnx/model.onnx_data") if options else ("model.onnx", "onnx/model.onnx")
    assert (tmp_path / "out" / first).samefile(tmp_path / "out" / second)
    outputs = [
        entry.name for entry in onnxruntime.InferenceSession(str(tmp_path / "out" / "onnx/model.onnx")).get_outputs()
    ]
    assert outputs == ["sentence_embedding", "last_hidden_state"]
    alone = onnxruntime.InferenceSession(str(tmp_path / "plain" / "model.onnx")).get_outputs()
    assert [entry.name for entry in alone] == ["sentence_embedding"]
    wanted = EmbeddingModel(tmp_path / "plain").encode(TEXTS)
    np.testing.assert_array_equal(EmbeddingModel(tmp_path / "out").encode(TEXTS), wanted)
    close(np.concatenate([vector for vector, _ in states_of(tmp_path / "out", "onnx/model.onnx", TEXTS)]), wanted)


def test_another_layout_leaves_no_files_of_the_one_before(tmp_path: Path) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "mini")
    quick(checkpoint, tmp_path / "out", layout="hub")
    quick(checkpoint, tmp_path / "out", force=True, targets=("cuda",))
    assert not (tmp_path / "out" / "onnx").exists()
    assert_named(tmp_path / "out")


def test_a_graph_that_does_not_pass_leaves_under_its_second_name_too(tmp_path: Path) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "mini")
    described = quick(checkpoint, tmp_path / "out", layout="hub", targets=("cpu", "cuda"), precisions=("fp16", "fp32"))
    assert (tmp_path / "out" / "onnx" / "model.onnx").is_file()
    refusals = Refusals(lambda _: None)
    refusals.add(("cpu", "fp32"), ParityError("differs"))
    rest = left(tmp_path / "out", described, refusals)
    rest.write(tmp_path / "out")
    assert {variant.target for variant in rest.variants} == {"cuda", "cuda-native"}
    assert not (tmp_path / "out" / "onnx").exists()
    assert_named(tmp_path / "out")


def test_each_encoder_of_a_router_has_files_of_its_own(tmp_path: Path) -> None:
    query = routed.transformer(tmp_path / "a", max_seq_length=9)
    document = [*routed.transformer(tmp_path / "b", "roberta"), routed.normalize()]
    checkpoint = routed.save(tmp_path / "routed", routed.router(query, document))
    quick(checkpoint, tmp_path / "out", layout="hub")
    described = assert_named(tmp_path / "out")
    assert (
        read(tmp_path / "out" / "config.json")["model_type"]
        != read(tmp_path / "out" / next(iter(described.routes)) / "config.json")["model_type"]
    )
    for folder in ("", *described.routes):
        assert (tmp_path / "out" / folder / "onnx" / "model.onnx").is_file()


def test_a_reranker_has_its_logits_under_both_names(tmp_path: Path) -> None:
    quick(save_cross_encoder(tmp_path / "mini"), tmp_path / "out", layout="hub")
    assert_named(tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").samefile(tmp_path / "out" / "onnx" / "model.onnx")
    assert "id2label" in read(tmp_path / "out" / "config.json")


@pytest.mark.parametrize("save", [save_splade, save_multi_vector], ids=["sparse", "late interaction"])
def test_other_tasks_keep_their_settings_and_refuse_the_hub_layout(tmp_path: Path, save: Any) -> None:
    checkpoint = save(tmp_path / "mini")
    quick(checkpoint, tmp_path / "out")
    assert_named(tmp_path / "out")
    assert read(tmp_path / "out" / "modules.json") == read(checkpoint / "modules.json")
    with pytest.raises(UnsupportedCheckpointError, match="has no layout hub: tools run a"):
        quick(checkpoint, tmp_path / "hub", layout="hub")
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("options", [{"precisions": ("int8",)}, {"targets": ("cuda",)}, {"layout": "tree"}], ids=str)
def test_a_layout_without_its_graph_is_refused_before_anything_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="layout"):
        export(str(tmp_path / "nothing"), ExportOptions(output=tmp_path / "out", **{"layout": "hub", **options}))


def test_a_model_directory_is_still_no_checkpoint(tmp_path: Path) -> None:
    quick(save_sentence_transformers(tmp_path / "mini"), tmp_path / "out", layout="hub")
    with pytest.raises(CheckpointError, match="is a model directory already"):
        resolve_checkpoint(tmp_path / "out")


def test_loading_opens_none_of_them(tmp_path: Path) -> None:
    quick(save_sentence_transformers(tmp_path / "mini"), tmp_path / "out", layout="hub")
    wanted = EmbeddingModel(tmp_path / "out").encode(TEXTS)
    for record in manifest.read(tmp_path / "out").tool_files:
        (tmp_path / "out" / record.file).unlink()
    np.testing.assert_array_equal(EmbeddingModel(tmp_path / "out").encode(TEXTS), wanted)


def test_the_card_tells_the_hub_where_the_model_is_from(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    from fastembed_rt_export.directory.card import card

    checkpoint = save_sentence_transformers(tmp_path / "mini")
    (checkpoint / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [en, no]\n---\nmine\n")
    described = quick(checkpoint, tmp_path / "out", layout="hub")
    found = ModelCard((tmp_path / "out" / "README.md").read_text(encoding="utf-8")).data
    assert (found.license, found.language, found.base_model) == ("apache-2.0", ["en", "no"], None)
    assert (found.library_name, found.pipeline_tag) == ("fastembed-rt", "sentence-similarity")
    assert {"sentence-transformers", "onnx", "transformers.js"} <= set(found.tags)
    source = dataclasses.replace(described.source, checkpoint="acme/mini", revision="0" * 40)
    assert ModelCard(card(dataclasses.replace(described, source=source))).data.base_model == "acme/mini"


def test_a_card_that_is_no_yaml_names_no_license_and_is_said(tmp_path: Path) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "mini")
    (checkpoint / "README.md").write_text("---\nlicense: [\n---\n")
    described = quick(checkpoint, tmp_path / "out")
    assert described.source.license is None
    assert any("README.md cannot be read" in note for note in described.notes)
