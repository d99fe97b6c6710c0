"""LoRA adapters and their base: where it is, whose modules count, which of several adapters is merged into it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import Made, copied
from checkpoints import TEXTS, change_json, reference_vectors, save_sentence_transformers, save_transformers, write_json
from cross_encoders import save_cross_encoder
from exports import contents, quick
from lora_merges import QUERY, assert_merged, refusal, tensors_of
from multi_vectors import save_multi_vector
from safetensors.torch import load_file, save_file
from tolerances import close

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, ModelNotFoundError
from fastembed_rt_export.adapters.whole import _link_model
from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, check_again, export


def test_modules_of_the_base_count_where_the_adapter_has_none(tmp_path: Path) -> None:
    base = save_sentence_transformers(tmp_path / "st", pooling="cls", prompts={"query": "the new "})
    made = Made(tmp_path, base=base).queries_and_values()
    manifest = quick(made.save(), tmp_path / "onnx")
    assert (manifest.pooling, manifest.normalize, manifest.prompts["query"]) == (("cls",), True, "the new ")


def test_modules_of_the_adapter_count_where_it_has_some(tmp_path: Path) -> None:
    base = save_sentence_transformers(tmp_path / "st", pooling="cls")
    other = save_sentence_transformers(tmp_path / "other", pooling="max", max_seq_length=12)
    made = Made(tmp_path, base=base).queries_and_values()
    adapter = made.save()
    # As sentence-transformers saves a model with an adapter: all but config.json and the base's weights.
    for name in ("config.json", "model.safetensors"):
        (other / name).unlink()
    copied(other, tmp_path / "saved")
    for file in adapter.iterdir():
        file.rename(tmp_path / "saved" / file.name)
    manifest = quick(tmp_path / "saved", tmp_path / "onnx")
    assert (manifest.pooling, manifest.max_length, manifest.source.checkpoint) == (("max",), 12, "saved")
    close(tensors_of(tmp_path / "saved")[f"{QUERY.format(0)}.weight"], made.wanted[f"{QUERY.format(0)}.weight"].numpy())


def test_an_adapter_beside_a_model_is_merged_into_that(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    adapter = made.save(base_model_name_or_path="org/somewhere-else")
    for file in adapter.iterdir():
        copy = made.base / file.name
        copy.write_bytes(file.read_bytes())
    assert_merged(made, made.base)


def test_the_base_by_option(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    adapter = made.save(base_model_name_or_path="/home/somebody/models/base")
    message = refusal(adapter, ModelNotFoundError)
    assert "'/home/somebody/models/base'" in message
    assert "name it with --base" in message
    manifest = quick(adapter, tmp_path / "onnx", base=str(made.base))
    assert manifest.source.adapter is not None
    assert manifest.source.adapter.base == "base"


def test_the_manifest_says_adapter_and_base_and_their_hashes(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    first = quick(made.save(), tmp_path / "first").source
    assert first.adapter is not None
    assert (first.checkpoint, first.adapter.base, first.adapter.method) == ("adapter", "base", "lora")
    again = quick(made.save(lora_alpha=9), tmp_path / "again").source.adapter
    assert again is not None
    assert again.settings_sha256 != first.adapter.settings_sha256
    assert (again.sha256, again.base_sha256) == (first.adapter.sha256, first.adapter.base_sha256)
    tensors = load_file(made.base / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] += 1
    save_file(tensors, made.base / "model.safetensors", metadata={"format": "pt"})
    changed = quick(made.adapter, tmp_path / "changed").source
    assert changed.adapter is not None
    assert changed.adapter.base_sha256 != again.base_sha256
    assert changed.sha256 != first.sha256


@pytest.mark.usefixtures("short_gate")
def test_verified_without_peft_and_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else spec(name, *rest))
    made = Made(tmp_path).queries_and_values()
    done = export(str(made.save()), ExportOptions(output=tmp_path / "onnx"))
    assert "as merged at export, since peft is not installed" in done.manifest.parity["reference"]
    options = ExportOptions(base=str(made.base))
    assert check_again(tmp_path / "onnx", str(made.adapter), options, lambda _: None).parity["status"] == "passed"


@pytest.mark.usefixtures("short_gate")
def test_several_adapters(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    both = tmp_path / "both"
    for name in ("legal", "medical"):
        copied(made.save(), both / name)
    assert "the adapters legal, medical" in refusal(both, UnsupportedCheckpointError)
    options = ExportOptions(output=tmp_path / "one", verify=False, adapter="medical")
    source = export(str(both), options).manifest.source
    assert source.adapter is not None
    assert (source.adapter.base, source.adapter.folder) == ("base", "medical")
    checked = check_again(tmp_path / "one", str(both), ExportOptions(), lambda _: None)
    assert checked.parity["status"] == "passed"


@pytest.mark.usefixtures("short_gate")
def test_an_adapter_of_several_beside_their_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tmp_path).queries_and_values()
    made.save(base_model_name_or_path="somebody/who-is-not-asked")
    copied(made.adapter, made.base / "medical")
    made.linear(QUERY.format(0), 8, 1.0)
    said: list[str] = []
    export(str(made.base), ExportOptions(output=tmp_path / "plain", verify=False), said.append)
    assert "note: base holds the adapters medical; none is merged, --adapter names one" in said
    monkeypatch.chdir(tmp_path)
    done = export(str(made.base), ExportOptions(adapter="medical"))
    assert done.directory == Path("base-medical-onnx")
    adapter = done.manifest.source.adapter
    assert adapter is not None
    assert (adapter.base, adapter.folder, done.manifest.parity["status"]) == ("base", "medical", "passed")
    checked = check_again(done.directory, str(made.base), ExportOptions(), said.append)
    assert checked.parity["status"] == "passed"
    with EmbeddingModel(done.directory) as model, EmbeddingModel(tmp_path / "plain") as plain:
        apart = np.abs(model.encode(TEXTS) - plain.encode(TEXTS)).max()
    assert apart > 0.01
    with pytest.raises(InvalidInputError, match=r"no adapter in 'legal'.*there are medical"):
        export(str(made.base), ExportOptions(output=tmp_path / "no", adapter="legal"))
    with pytest.raises(InvalidInputError, match="there is no other base; leave --base out"):
        export(str(made.base), ExportOptions(output=tmp_path / "no", adapter="medical", base=str(made.base)))


@pytest.mark.usefixtures("short_gate")
def test_an_adapter_of_several_is_merged_into_the_transformer_that_modules_json_names(tmp_path: Path) -> None:
    """A config.json in the root is none of transformers': early versions of sentence-transformers wrote one there."""
    source = save_sentence_transformers(tmp_path / "source")
    if (source / "config.json").is_file():  # today's layout has the transformer in the root
        folder = source / "0_Transformer"
        folder.mkdir()
        for file in [file for file in source.iterdir() if file.is_file() and file.name != "modules.json"]:
            shutil.move(file, folder / file.name)
        modules = json.loads((source / "modules.json").read_text())
        modules[0]["path"] = "0_Transformer"
        write_json(source / "modules.json", modules)
    write_json(source / "config.json", {"__version__": {"sentence_transformers": "2.0.0"}})
    made = Made(tmp_path).queries_and_values()
    copied(made.save(), source / "medical")
    export(str(source), ExportOptions(output=tmp_path / "plain", verify=False))
    done = export(str(source), ExportOptions(output=tmp_path / "one", adapter="medical"))
    assert done.manifest.source.adapter is not None
    assert done.manifest.parity["status"] == "passed"
    with EmbeddingModel(tmp_path / "one") as model, EmbeddingModel(tmp_path / "plain") as plain:
        assert np.abs(model.encode(TEXTS) - plain.encode(TEXTS)).max() > 0.01


@pytest.mark.usefixtures("short_gate")
def test_an_adapter_for_queries_and_another_for_documents(tmp_path: Path) -> None:
    """Both on the weights beside their folders, which lie in the export once where no adapter changes them."""
    prompts = {"query": "query: ", "document": "the new "}
    source = save_sentence_transformers(tmp_path / "source", prompts=prompts)
    names = {"query": "asks", "document": "answers"}
    wanted = {}
    for k, (role, name) in enumerate(names.items()):
        made = Made(tmp_path / name, base=source).linear(QUERY.format(k), 4, 2.0)
        made.save(r=4, target_modules=QUERY.format(k).replace(".", r"\."))
        copied(made.adapter, source / name)
        merged = shutil.copytree(source, tmp_path / f"merged-{name}")
        made.model.load_state_dict(made.wanted)
        made.model.save_pretrained(merged)
        wanted[role] = reference_vectors(merged, prompt_name=role)
    chosen = ",".join(f"{role}={name}" for role, name in names.items())
    done = export(str(source), ExportOptions(output=tmp_path / "onnx", adapter=chosen))
    assert done.manifest.parity["status"] == "passed"
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode_query(TEXTS), wanted["query"])
        close(model.encode_document(TEXTS), wanted["document"])
    assert np.abs(wanted["query"] - wanted["document"]).max() > 0.01
    checked = check_again(tmp_path / "onnx", str(source), ExportOptions(), lambda _: None)
    assert checked.parity["status"] == "passed"
    with pytest.raises(InvalidInputError, match=r"no adapter in 'legal'.*there are answers, asks"):
        export(str(source), ExportOptions(output=tmp_path / "no", adapter="query=legal,document=asks"))
    with pytest.raises(InvalidInputError, match="named for both"):
        export(str(source), ExportOptions(output=tmp_path / "no", adapter="document=asks,document=answers"))
    plain = save_transformers(tmp_path / "plain")
    copied(source / "asks", plain / "asks")
    message = refusal(plain, UnsupportedCheckpointError, adapter="query=asks,document=asks")
    assert "adapters for each role" in message


def test_the_tokenizer_of_a_base_comes_with_its_named_chat_templates(tmp_path: Path) -> None:
    base = save_transformers(tmp_path / "base")
    (base / "additional_chat_templates").mkdir()
    for file in ("additional_chat_templates/other.jinja", "chat_template.jinja", "vocab.tiktoken", "notes.md"):
        (base / file).write_text("{{ messages }}", encoding="utf-8")
    _link_model(base, tmp_path / "place")
    assert {*contents(tmp_path / "place")} == {*contents(base)} - {"notes.md"}


@pytest.mark.parametrize(("save", "task"), [(save_cross_encoder, "reranking"), (save_multi_vector, "late interaction")])
def test_roles_of_a_task_that_has_none_are_refused(tmp_path: Path, save: Any, task: str) -> None:
    source = save(tmp_path / "source")
    for name in ("asks", "answers"):
        made = Made(tmp_path / name, base=save_transformers(tmp_path / "base")).queries_and_values()
        copied(made.save(), source / name)
    message = refusal(source, UnsupportedCheckpointError, adapter="query=asks,document=answers")
    assert f"source is for {task}, and adapters for each role are for embedding and sparse models" in message


def test_what_is_wrong_is_said_of_the_file_that_the_user_has(tmp_path: Path) -> None:
    """Not of the directory that checkpoint and adapter were put together in, which is gone by then."""
    made = Made(tmp_path).queries_and_values()
    adapter = made.save()
    change_json(made.base / "tokenizer_config.json", model_max_length=1)
    message = refusal(adapter)
    assert f"{adapter}: max_length 1 leaves no room" in message
    (made.base / "tokenizer.json").write_text("no tokenizer")
    assert str(made.base / "tokenizer.json") in refusal(adapter)

    source = save_sentence_transformers(tmp_path / "source")
    copied(adapter, source / "one")
    change_json(source / "config_sentence_transformers.json", default_prompt_name="none")
    message = refusal(source, adapter="one")
    assert str(source / "config_sentence_transformers.json") in message
    message = refusal(source, adapter="query=one,document=one")
    assert str(source / "config_sentence_transformers.json") in message
