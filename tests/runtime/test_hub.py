"""Names become local paths: what is downloaded, what is not, and what every failure says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, running_hub

import fastembed_rt
from fastembed_rt.errors import (
    CheckpointError,
    FastembedRtError,
    IntegrityError,
    InvalidInputError,
    MissingDependencyError,
    ModelFormatError,
    ModelNotFoundError,
)
from fastembed_rt.hub import Located, resolve_checkpoint, resolve_model
from fastembed_rt.manifest import FileRecord, Manifest, Source, Variant

Files = dict[str, str | bytes]

NAME = "acme/mini"
TOKEN = "hf_right"


def record(file: str) -> FileRecord:
    return FileRecord(file=file, size=1, sha256="0" * 64)


def variant(file: str, precision: str, weights: tuple[str, ...] = ()) -> Variant:
    return Variant(
        graph=record(file),
        weights=tuple(map(record, weights)),
        target="cpu",
        precision=precision,
        opset=17,
        inputs=("input_ids", "attention_mask"),
    )


MANIFEST = Manifest(
    source=Source(checkpoint="acme/base", model_type="bert", sha256="0" * 64),
    dim=4,
    pooling=("mean",),
    normalize=True,
    max_length=16,
    max_positions=16,
    tokenizer=record("tokenizer.json"),
    variants=(variant("model.onnx", "fp32", ("model.onnx.data",)), variant("model.cpu.int8.onnx", "int8")),
    default_variant="model.onnx",
)
MODEL: Files = {
    "README.md": "a card",
    "manifest.json": MANIFEST.to_json(),
    "model.cpu.int8.onnx": b"int8 graph",
    "model.onnx": b"graph",
    "model.onnx.data": b"weights",
    "tokenizer.json": "{}",
}
MODULES = json.dumps(
    [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
)
CHECKPOINT: Files = {  # no two files alike: the cache would download their contents once
    ".gitattributes": "x",
    "1_Pooling/config.json": '{"of": "1_Pooling/config.json"}',
    "2_Dense/config.json": '{"of": "2_Dense/config.json"}',
    "2_Dense/model.safetensors": b"dense",
    "2_Dense/pytorch_model.bin": b"dense too",
    "README.md": "a card",
    "config.json": '{"of": "config.json"}',
    "config_sentence_transformers.json": '{"of": "config_sentence_transformers.json"}',
    "flax_model.msgpack": b"flax",
    "model.safetensors": b"weights",
    "modeling_mini.py": "print()",
    "modules.json": MODULES,
    "onnx/config.json": '{"of": "onnx/config.json"}',
    "onnx/model.onnx": b"onnx",
    "openvino/openvino_model.bin": b"openvino",
    "pytorch_model.bin": b"weights too",
    "sentence_bert_config.json": '{"of": "sentence_bert_config.json"}',
    "sentencepiece.bpe.model": b"pieces",
    "tf_model.h5": b"tensorflow",
    "tokenizer.json": '{"of": "tokenizer.json"}',
    "vocab.txt": "words",
}
NEEDED = [
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "tokenizer.json",
    "vocab.txt",
]
PLAIN: Files = {"config.json": "{}", "model.safetensors": b"weights", "tokenizer.json": "{}"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A fresh hub and an empty cache; huggingface_hub has read its settings already, so they are patched."""
    from huggingface_hub import constants

    with running_hub() as running:
        point_at(running.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(variable, raising=False)
        yield running


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # before 1.0, file_download had a copy of its own
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


def default_files(manifest: Manifest) -> list[str]:
    return [manifest.tokenizer.file, *(file.file for file in manifest.default.files)]


def tree(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def says(error: pytest.ExceptionInfo[FastembedRtError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def fails(name: str, *words: str, **options: Any) -> None:
    """Both resolvers refuse with a ModelNotFoundError that says `words`."""
    with pytest.raises(ModelNotFoundError) as error:
        resolve_model(name, files=default_files, **options)
    says(error, *words)
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(name, **options)
    says(error, *words)


# Local directories


def test_a_directory_wins_over_the_hub(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, MODEL)
    (tmp_path / NAME).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve_model(NAME, files=default_files) == Path(NAME)
    assert resolve_checkpoint(NAME) == Located(path=Path(NAME), name="mini", revision=None)
    assert hub.requests == []


def test_the_name_of_a_local_checkpoint_never_tells_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret" / "mine").mkdir(parents=True)
    assert resolve_checkpoint(tmp_path / "secret" / "mine").name == "mine"
    monkeypatch.chdir(tmp_path / "secret" / "mine")
    assert resolve_checkpoint(".").name == "mine"


def test_a_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert resolve_model("~/model", files=default_files) == tmp_path / "model"


@pytest.mark.parametrize(
    "name",
    [
        "./mini",
        "../mini",
        "/no/such/mini",
        "~/no-such-mini",
        "~no-such-user/mini",
        "models/acme/mini",
        "mini/",
        r"models\mini",
        r"C:\models\mini",
        "C:mini",
        "./" + "long" * 2000,
    ],
)
def test_what_looks_like_a_path_is_never_looked_up_on_the_hub(hub: FakeHub, name: str) -> None:
    fails(name, "does not exist", "org/name")
    assert hub.requests == []


def test_a_path_object_is_never_looked_up_on_the_hub(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        resolve_checkpoint(Path("acme") / "mini")
    assert hub.requests == []


def test_a_file_is_refused_with_the_advice_to_give_its_directory(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    fails(str(tmp_path / "model.onnx"), "is a file", "directory")


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_the_working_directory(name: str) -> None:
    fails(name, "empty")


def test_a_revision_of_a_local_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as error:
        resolve_model(tmp_path, files=default_files, revision="v1")
    says(error, "v1", "leave the revision out")


# Model directories on the hub


def test_only_the_files_asked_for_are_downloaded(hub: FakeHub) -> None:
    commit = hub.add(NAME, MODEL)
    snapshot = resolve_model(NAME, files=default_files)
    assert snapshot.name == commit
    assert tree(snapshot) == ["manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"]
    assert sorted(hub.downloaded()) == tree(snapshot)
    assert (snapshot / "model.onnx.data").read_bytes() == b"weights"


def test_another_choice_of_files_downloads_another_variant(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)
    snapshot = resolve_model(NAME, files=lambda manifest: ["model.cpu.int8.onnx", "model.cpu.int8.onnx"])
    assert tree(snapshot) == ["manifest.json", "model.cpu.int8.onnx"]


def test_a_repository_without_an_owner_is_a_name_too(hub: FakeHub) -> None:
    commit = hub.add("mini", MODEL)
    assert resolve_model("mini", files=default_files).name == commit


def test_the_second_time_nothing_is_downloaded(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)
    first = resolve_model(NAME, files=default_files)
    hub.requests.clear()
    assert resolve_model(NAME, files=default_files) == first
    assert hub.downloaded() == []
    assert len(hub.requests) == 1, "one question: is main still that commit?"


def test_the_cache_serves_without_asking_when_only_local_files_are_allowed(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)
    first = resolve_model(NAME, files=default_files)
    hub.requests.clear()
    assert resolve_model(NAME, files=default_files, local_files_only=True) == first
    assert hub.requests == []


def test_a_variant_that_is_not_cached_is_named_offline(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)
    resolve_model(NAME, files=default_files)
    with pytest.raises(ModelNotFoundError) as error:
        resolve_model(NAME, files=lambda manifest: ["model.cpu.int8.onnx"], local_files_only=True)
    says(error, "model.cpu.int8.onnx", "not in the cache", f"hf download {NAME}")


def test_all_files_come_from_the_commit_of_the_manifest(hub: FakeHub) -> None:
    commit = hub.add(NAME, MODEL)

    def push_meanwhile(manifest: Manifest) -> list[str]:
        hub.add(NAME, {**MODEL, "model.onnx": b"a newer graph"})
        return default_files(manifest)

    snapshot = resolve_model(NAME, files=push_meanwhile)
    assert (snapshot / "model.onnx").read_bytes() == b"graph"
    assert hub.revisions_asked() == {"main", commit}


def test_a_revision_pins_an_older_commit(hub: FakeHub) -> None:
    old = hub.add(NAME, MODEL)
    new = hub.add(NAME, {**MODEL, "model.onnx": b"a newer graph"})
    assert resolve_model(NAME, files=default_files).name == new
    hub.requests.clear()
    pinned = resolve_model(NAME, files=default_files, revision=old)
    assert pinned.name == old
    assert (pinned / "model.onnx").read_bytes() == b"graph"
    assert hub.revisions_asked() == {old}


def test_a_cache_directory_of_ones_own_is_used(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, MODEL)
    snapshot = resolve_model(NAME, files=default_files, cache_dir=tmp_path / "mine")
    assert snapshot.is_relative_to(tmp_path / "mine")
    assert not (tmp_path / "cache").exists()


def test_a_repository_without_a_manifest_gets_the_command_that_makes_one(hub: FakeHub) -> None:
    hub.add(NAME, CHECKPOINT)
    with pytest.raises(ModelNotFoundError) as error:
        resolve_model(NAME, files=default_files)
    says(error, "not a fastembed-rt model directory", f"fastembed-rt export {NAME}")


@pytest.mark.parametrize("text", ["not JSON", '{"format": "other"}', b"\xff\xfe"])
def test_a_manifest_that_cannot_be_read_is_named(hub: FakeHub, text: str | bytes) -> None:
    hub.add(NAME, {**MODEL, "manifest.json": text})
    with pytest.raises(ModelFormatError) as error:
        resolve_model(NAME, files=default_files)
    says(error, f"{NAME}/manifest.json")


def test_a_file_that_the_manifest_promises_and_the_repository_lacks_is_named(hub: FakeHub) -> None:
    hub.add(NAME, {file: data for file, data in MODEL.items() if file != "model.onnx.data"})
    with pytest.raises(IntegrityError) as error:
        resolve_model(NAME, files=default_files)
    says(error, NAME, "model.onnx.data")


def test_a_choice_that_fails_keeps_its_own_error(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)

    def no_such_precision(manifest: Manifest) -> list[str]:
        raise InvalidInputError("no fp16 here")

    with pytest.raises(InvalidInputError, match="no fp16 here"):
        resolve_model(NAME, files=no_such_precision)


# Checkpoints on the hub


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


# Access


def test_the_token_is_sent_with_every_request_to_the_hub_and_to_nobody_else(hub: FakeHub) -> None:
    commit = hub.add(NAME, CHECKPOINT, private_token=TOKEN)
    assert resolve_checkpoint(NAME, token=TOKEN).revision == commit
    assert {request.token for request in hub.requests if not request.path.startswith("/large/")} == {TOKEN}
    assert {request.token for request in hub.requests if request.path.startswith("/large/")} == {None}


def test_the_token_of_the_environment_is_used(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add(NAME, MODEL, private_token=TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert resolve_model(NAME, files=default_files).name == commit


def test_no_token_is_sent_where_the_caller_forbids_it(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, MODEL)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    resolve_model(NAME, files=default_files, token=False)
    assert {request.token for request in hub.requests} == {None}


def test_a_private_repository_is_refused_without_a_token(hub: FakeHub) -> None:
    hub.add(NAME, MODEL, private_token=TOKEN)
    fails(NAME, NAME, hub.url, "spelling", "private", "HF_TOKEN")


def test_a_private_repository_is_refused_with_the_token_of_another(hub: FakeHub) -> None:
    hub.add(NAME, MODEL, private_token=TOKEN)
    hub.known_tokens.add("hf_other")
    fails(NAME, "spelling", "the token in use has no access", token="hf_other")


def test_a_token_that_the_hub_does_not_know_is_said_to_be_refused(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)
    fails(NAME, "401", "the token was refused", token="hf_wrong")


def test_no_message_holds_the_token(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(NAME, token="hf_wrong")
    assert "hf_wrong" not in str(error.value)


def test_a_stored_token_that_does_not_exist_cannot_be_asked_for(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)
    with pytest.raises(InvalidInputError) as error:
        resolve_model(NAME, files=default_files, token=True)
    says(error, "no token is stored", "hf auth login")


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_gated_repository_says_where_to_ask_for_access(hub: FakeHub, token: str | None) -> None:
    hub.add(NAME, CHECKPOINT, gated=True)
    hub.known_tokens.add(TOKEN)
    fails(NAME, "gated", f"{hub.url}/{NAME}", "token", token=token)


def test_a_repository_that_does_not_exist_may_be_a_typing_error(hub: FakeHub) -> None:
    fails("acme/minni", "acme/minni", "spelling", hub.url)


def test_a_revision_that_does_not_exist_is_named(hub: FakeHub) -> None:
    hub.add(NAME, CHECKPOINT)
    fails(NAME, NAME, "'v9'", f"{hub.url}/{NAME}", revision="v9")


@pytest.mark.parametrize("name", ["two words", "acme/mini?", "acme/-mini", "mini\0", "ac..me/mini"])
def test_what_cannot_be_a_repository_is_refused_without_asking(hub: FakeHub, name: str) -> None:
    fails(name, "org/name")
    assert hub.requests == []


# Connection


def test_an_empty_cache_offline_says_how_to_fill_it(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, CHECKPOINT)
    fails(
        NAME,
        "not in the cache",
        str(tmp_path / "cache"),
        "local_files_only",
        "HF_HUB_OFFLINE",
        f"hf download {NAME} --local-dir",
        local_files_only=True,
    )
    assert hub.requests == []


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub retries with growing pauses."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waiting")
def test_a_hub_that_cannot_be_reached_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        point_at(nobody, monkeypatch)
        fails(NAME, NAME, nobody, "cannot be reached", "check the connection")


@pytest.mark.usefixtures("no_waiting")
def test_the_cache_serves_when_the_connection_is_gone(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, CHECKPOINT)
    hub.add("acme/model", MODEL)
    checkpoint, model = resolve_checkpoint(NAME), resolve_model("acme/model", files=default_files)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        point_at(f"http://127.0.0.1:{unused.getsockname()[1]}", monkeypatch)
        assert resolve_checkpoint(NAME) == checkpoint
        assert resolve_model("acme/model", files=default_files) == model


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(("status", "advice"), [(403, "read access"), (503, "try again later")])
def test_a_hub_that_answers_something_else_is_quoted(hub: FakeHub, status: int, advice: str) -> None:
    hub.add(NAME, {**MODEL, **CHECKPOINT})
    hub.broken_paths = {f"/{NAME}/resolve/main/{file}": status for file in ("manifest.json", "modules.json")}
    fails(NAME, hub.url, str(status), advice)


@pytest.mark.usefixtures("no_waiting")
def test_a_listing_that_fails_is_not_taken_for_an_empty_one(hub: FakeHub) -> None:
    commit = hub.add(NAME, CHECKPOINT)
    hub.broken_paths[f"/api/models/{NAME}/tree/{commit}"] = 500
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(NAME)
    says(error, "500", "list of files", NAME)


def test_a_cache_that_cannot_be_written_is_named(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, {**MODEL, **CHECKPOINT})
    (tmp_path / "file").touch()
    fails(NAME, str(tmp_path / "file"), "can be written", cache_dir=tmp_path / "file" / "cache")


# The package around


def test_a_missing_huggingface_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError) as error:
        resolve_model(NAME, files=default_files)
    says(error, "pip install huggingface-hub", "local directory")


def run_python(code: str, tmp_path: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **clean,
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(Path(fastembed_rt.__file__).parents[1]),
            "HF_HOME": str(tmp_path / "home"),
            **environment,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_settings_of_huggingface_hub_are_those_of_the_environment(tmp_path: Path) -> None:
    code = f"from fastembed_rt import hub; print(hub.resolve_checkpoint({NAME!r}))"
    with running_hub() as hub:
        commit = hub.add(NAME, CHECKPOINT, private_token=TOKEN)
        first = run_python(code, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
        assert commit in first and str(tmp_path / "home") in first
        asked = len(hub.requests)
        assert run_python(code, tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1") == first
        assert len(hub.requests) == asked


def test_offline_by_the_environment_says_so(tmp_path: Path) -> None:
    code = (
        "from fastembed_rt import errors, hub\n"
        f"try: hub.resolve_checkpoint({NAME!r})\n"
        "except errors.ModelNotFoundError as error: print(error)"
    )
    message = run_python(code, tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE=1" in message and "modules.json" in message and "\n" not in message


def test_importing_the_resolver_does_not_import_huggingface_hub(tmp_path: Path) -> None:
    code = "import sys; from fastembed_rt import hub; print('huggingface_hub' in sys.modules)"
    assert run_python(code, tmp_path) == "False"
