"""Model directories by path or from the hub: what is downloaded, from which commit, and what the cache serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_hub import FakeHub
from hub_repositories import CHECKPOINT, MODEL, NAME, default_files, fails, says, tree

from fastembed_rt.errors import IntegrityError, InvalidInputError, ModelFormatError, ModelNotFoundError
from fastembed_rt.hub.resolve import Located, resolve_checkpoint, resolve_model
from fastembed_rt.manifest import Manifest

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
