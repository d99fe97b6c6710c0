"""Checkpoints from the hub: what an export reads is downloaded, and nothing else."""

from __future__ import annotations

import json

import pytest
from fake_hub import FakeHub
from hub_repositories import CHECKPOINT, NAME, NEEDED, PLAIN, Files, says, tree

from fastembed_rt.errors import CheckpointError, InvalidInputError, ModelNotFoundError
from fastembed_rt.hub.resolve import resolve_checkpoint


def test_an_export_gets_what_it_reads_and_nothing_else(hub: FakeHub) -> None:
    commit = hub.add(NAME, CHECKPOINT)
    located = resolve_checkpoint(NAME)
    assert (located.name, located.revision) == (NAME, commit)
    assert tree(located.path) == NEEDED
    assert sorted(hub.downloaded()) == NEEDED


def test_weights_come_last_so_that_an_interrupted_download_shows(hub: FakeHub) -> None:
    hub.add(NAME, CHECKPOINT)
    resolve_checkpoint(NAME)
    asked = [request.path for request in hub.requests if request.method == "GET"]
    weights = [path for path in asked if path.endswith((".safetensors", ".bin"))]
    assert asked[-2:] == weights
    assert weights[-1].endswith("/model.safetensors") and "2_Dense" not in weights[-1]


def test_pickled_weights_are_taken_only_where_there_are_no_safetensors(hub: FakeHub) -> None:
    hub.add(NAME, {file: data for file, data in CHECKPOINT.items() if not file.endswith(".safetensors")})
    taken = [file for file in tree(resolve_checkpoint(NAME).path) if file.endswith(".bin")]
    assert taken == ["2_Dense/pytorch_model.bin", "pytorch_model.bin"]


@pytest.mark.parametrize(("stem", "suffix"), [("model", ".safetensors"), ("pytorch_model", ".bin")])
def test_shards_are_those_that_the_index_names(hub: FakeHub, stem: str, suffix: str) -> None:
    shards = [f"{stem}-0000{n}-of-00002{suffix}" for n in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}})
    files: Files = {
        "config.json": "{}",
        f"{stem}{suffix}.index.json": index,
        shards[0]: b"1",
        shards[1]: b"2",
        f"{stem}.fp16{suffix}": b"another variant",
    }
    hub.add(NAME, files)
    assert tree(resolve_checkpoint(NAME).path) == sorted(set(files) - {f"{stem}.fp16{suffix}"})


def test_sharded_safetensors_are_preferred_over_whole_pickles(hub: FakeHub) -> None:
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}})
    hub.add(
        NAME,
        {
            "config.json": "{}",
            "model.safetensors.index.json": index,
            "model-00001-of-00001.safetensors": b"1",
            "pytorch_model.bin": b"2",
            "pytorch_model.bin.index.json": "{}",
        },
    )
    assert tree(resolve_checkpoint(NAME).path) == [
        "config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
    ]


def test_a_missing_shard_is_named(hub: FakeHub) -> None:
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}})
    hub.add(NAME, {"config.json": "{}", "model.safetensors.index.json": index})
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(NAME)
    says(error, "model-00001-of-00001.safetensors")


@pytest.mark.parametrize("index", ["not JSON", "[]", "{}", '{"weight_map": []}'])
def test_a_damaged_weight_index_is_named(hub: FakeHub, index: str) -> None:
    hub.add(NAME, {"config.json": "{}", "model.safetensors.index.json": index})
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(NAME)
    says(error, "model.safetensors.index.json", NAME)


@pytest.mark.parametrize("modules", ["not JSON", "{}", '["Transformer"]', '[{"type": "Transformer"}]'])
def test_a_damaged_list_of_modules_is_named(hub: FakeHub, modules: str) -> None:
    hub.add(NAME, {**CHECKPOINT, "modules.json": modules})
    if modules == "{}":  # no modules at all is for the reader of the checkpoint to judge
        assert "1_Pooling/config.json" not in tree(resolve_checkpoint(NAME).path)
        return
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(NAME)
    says(error, "modules.json", NAME)


def test_a_plain_transformer_needs_no_modules(hub: FakeHub) -> None:
    hub.add(NAME, PLAIN)
    assert tree(resolve_checkpoint(NAME).path) == sorted(PLAIN)


def test_lengths_and_masks_of_stanfords_colbert_are_fetched(hub: FakeHub) -> None:
    files: Files = {**PLAIN, "artifact.metadata": '{"doc_maxlen": 180, "attend_to_mask_tokens": true}'}
    hub.add(NAME, files)
    assert tree(resolve_checkpoint(NAME).path) == sorted(files)


def test_a_cache_without_colberts_metadata_is_refused_offline(hub: FakeHub) -> None:
    hub.add(NAME, {**PLAIN, "artifact.metadata": "{}"})
    snapshot = resolve_checkpoint(NAME).path
    (snapshot / "artifact.metadata").unlink()
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(NAME, local_files_only=True)
    says(error, "artifact.metadata", "not in the cache")


def test_modules_of_the_oldest_layout_are_found_by_their_path(hub: FakeHub) -> None:
    hub.add(
        NAME,
        {
            "0_Transformer/config.json": "{}",
            "0_Transformer/pytorch_model.bin": b"1",
            "0_Transformer/vocab.txt": "words",
            "modules.json": json.dumps([{"path": "0_Transformer"}]),
            "other/config.json": "{}",
        },
    )
    assert tree(resolve_checkpoint(NAME).path) == [
        "0_Transformer/config.json",
        "0_Transformer/pytorch_model.bin",
        "0_Transformer/vocab.txt",
        "modules.json",
    ]


def test_a_repository_that_is_no_encoder_is_refused(hub: FakeHub) -> None:
    hub.add(NAME, {"README.md": "a data set"})
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(NAME)
    says(error, NAME, "modules.json", "config.json")


@pytest.mark.parametrize("beside", [{}, {"config.json": "{}"}, {"modules.json": "[]"}], ids=str)
def test_an_adapter_is_fetched_with_its_weights(hub: FakeHub, beside: Files) -> None:
    weights = {"adapter_model.safetensors": b"1", "adapter_model.bin": b"2"}
    hub.add(NAME, {"adapter_config.json": "{}", **weights, **beside})
    located = resolve_checkpoint(NAME)
    assert tree(located.path) == sorted(["adapter_config.json", "adapter_model.safetensors", *beside])


def test_code_is_fetched_only_where_it_is_trusted_and_from_where_the_settings_say(hub: FakeHub) -> None:
    classes = {"AutoConfig": "configuring.Own", "AutoModel": "acme/code--modeling.Own"}
    tokenizer = {"AutoTokenizer": [None, "acme/code--deeper.Own"]}
    files: Files = {
        **PLAIN,
        "config.json": json.dumps({"auto_map": classes}),
        "tokenizer_config.json": json.dumps({"auto_map": tokenizer}),
        "configuring.py": "own = 1",
        "tests/test_it.py": "own = 2",
    }
    hub.add(NAME, files)
    code: Files = {
        "modeling.py": "other = 1",
        "deeper.py": "other = 2",
        "beside.py": "other = 3",
        "b/c.py": "",
        "x.bin": b"1",
    }
    hub.add("acme/code", code)
    plain = resolve_checkpoint(NAME).path
    assert tree(plain) == sorted({*PLAIN, "tokenizer_config.json"})
    assert not any("acme/code" in request.path for request in hub.requests)
    for _ in range(2):
        assert tree(resolve_checkpoint(NAME, code=True).path) == sorted(
            {*PLAIN, "tokenizer_config.json", "configuring.py"}
        )
    beside = plain.parents[2] / "models--acme--code"
    (snapshot,) = (beside / "snapshots").iterdir()
    assert tree(snapshot) == ["beside.py", "deeper.py", "modeling.py"]
    assert (beside / "refs" / "main").read_text() == snapshot.name  # by which it is found without a connection
    resolve_checkpoint(NAME, code=True, local_files_only=True)


def test_code_that_is_not_where_config_json_says_is_named(hub: FakeHub) -> None:
    hub.add(NAME, {**PLAIN, "config.json": json.dumps({"auto_map": {"AutoModel": "acme/code--modeling.Own"}})})
    hub.add("acme/code", {"other.py": ""})
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(NAME, code=True)
    says(error, "modeling.py", "acme/code", "no such file")


@pytest.mark.parametrize("beside", [{}, PLAIN], ids=["adapters alone", "beside a model"])
def test_an_adapter_of_several_is_fetched_from_its_folder(hub: FakeHub, beside: Files) -> None:
    one: dict[str, str | bytes] = {"adapter_config.json": "{}", "adapter_model.safetensors": b"1"}
    both: Files = {f"{name}/{file}": body for name in ("legal", "medical") for file, body in one.items()}
    hub.add(NAME, {**both, **beside})
    located = resolve_checkpoint(NAME, adapter="legal")
    assert tree(located.path) == sorted([*(f"legal/{file}" for file in one), *beside])
    assert located.adapters == ("medical",)
    together = resolve_checkpoint(NAME, adapter=("legal", "medical"))
    assert (tree(together.path), together.adapters) == (sorted([*both, *beside]), ())
    with pytest.raises(InvalidInputError, match=r"adapter '\.\./legal' is no folder of the checkpoint"):
        resolve_checkpoint(NAME, adapter="../legal")


def test_an_adapter_without_weights_is_refused(hub: FakeHub) -> None:
    hub.add(NAME, {"adapter_config.json": "{}"})
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(NAME)
    says(error, "model.safetensors", "adapter_config.json")


def test_a_chat_template_is_fetched_because_it_changes_texts(hub: FakeHub) -> None:
    hub.add(NAME, {**PLAIN, "chat_template.jinja": "{{ messages }}"})
    assert "chat_template.jinja" in tree(resolve_checkpoint(NAME).path)


def test_a_repository_without_weights_shows_what_it_has(hub: FakeHub) -> None:
    hub.add(NAME, {"config.json": "{}", "adapter_model.safetensors": b"1"})
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(NAME)
    says(error, "model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "merge")


@pytest.mark.parametrize("files", [CHECKPOINT, PLAIN], ids=["modules", "plain"])
def test_a_checkpoint_is_found_again_offline(hub: FakeHub, files: Files) -> None:
    hub.add(NAME, files)
    first = resolve_checkpoint(NAME)
    hub.requests.clear()
    assert resolve_checkpoint(NAME, local_files_only=True) == first
    assert hub.requests == []


def test_a_cache_that_lost_the_weights_is_refused_offline(hub: FakeHub) -> None:
    hub.add(NAME, CHECKPOINT)
    (resolve_checkpoint(NAME).path / "model.safetensors").unlink()
    (resolve_checkpoint(NAME, local_files_only=True).path / "2_Dense/model.safetensors").unlink()
    with pytest.raises(CheckpointError) as error:
        resolve_checkpoint(NAME, local_files_only=True)
    says(error, "cache is incomplete")


def test_a_cache_that_someone_else_filled_does_not_hide_the_pooling(hub: FakeHub) -> None:
    from huggingface_hub import hf_hub_download

    hub.add(NAME, CHECKPOINT)
    for file in ("config.json", "model.safetensors", "tokenizer.json"):  # as transformers does
        hf_hub_download(NAME, file)
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(NAME, local_files_only=True)
    says(error, "modules.json", "not in the cache")


@pytest.mark.parametrize("file", ["config_sentence_transformers.json", "sentence_bert_config.json"])
def test_a_cache_without_prompts_or_lengths_is_refused_offline(hub: FakeHub, file: str) -> None:
    from huggingface_hub import hf_hub_download

    hub.add(NAME, CHECKPOINT)
    for needed in NEEDED:
        if needed != file:
            hf_hub_download(NAME, needed)
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(NAME, local_files_only=True)
    says(error, file, "not in the cache")


def test_a_whole_download_by_huggingface_hub_serves_offline(hub: FakeHub) -> None:
    import huggingface_hub

    if not hasattr(huggingface_hub, "get_cached_repo_tree"):
        pytest.skip("this huggingface_hub does not keep the list of files")
    commit = hub.add(NAME, PLAIN)
    huggingface_hub.snapshot_download(NAME)
    assert resolve_checkpoint(NAME, local_files_only=True).revision == commit
