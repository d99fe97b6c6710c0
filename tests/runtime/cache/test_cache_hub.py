"""Checkpoints of a hub on 127.0.0.1: by their commit, again without it, without the export's packages, offline."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import Made, copied
from checkpoints import TEXTS, reference_vectors, save_sentence_transformers
from exports import contents, quick
from fake_hub import FakeHub
from inference_free import save_inference_free
from tolerances import close

from fastembed_rt import EmbeddingModel, SparseModel
from fastembed_rt.errors import FastembedRtError, MissingDependencyError, ModelNotFoundError

NAME = "acme/tiny"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("made") / "tiny", seed=5, pooling="cls")


def opened(name: str = NAME, **options: Any) -> EmbeddingModel:
    return EmbeddingModel.from_checkpoint(name, **{"verify": False, **options})


def gives(checkpoint: Path, **options: Any) -> None:
    with opened(**options) as model:
        close(model.encode(TEXTS), reference_vectors(checkpoint))


@contextmanager
def without_export() -> Iterator[None]:
    """Within, the export's packages are not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "fastembed_rt_export.pipeline", None)
        yield


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Any:
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def test_it_is_downloaded_and_exported_once_at_the_commit_that_the_name_has(
    hub: FakeHub, made: Path, exports: list[str]
) -> None:
    commit = hub.add(NAME, contents(made))
    gives(made)
    hub.requests.clear()
    with opened() as model:
        source = model.manifest.source
        assert (source.checkpoint, source.revision) == (NAME, commit)
    assert exports == [NAME]
    assert [request.path for request in hub.requests] == [f"/api/models/{NAME}"]


@pytest.mark.parametrize("folder", ["", "adapters/"])
def test_an_adapter_of_several_comes_with_it(
    hub: FakeHub, made: Path, tmp_path: Path, exports: list[str], folder: str
) -> None:
    source = Path(shutil.copytree(made, tmp_path / "tiny"))
    for name in ("asks", "answers"):
        copied(Made(tmp_path / name, base=made).queries_and_values().save(), source / folder / name)
    hub.add(NAME, contents(source))
    gives(made)
    assert not [file for file in hub.downloaded() if "adapter" in file]
    with opened(adapter="asks") as model:
        adapter = model.manifest.source.adapter
        assert adapter is not None
        assert (adapter.folder, adapter.base) == ("asks", NAME)
        assert np.abs(model.encode(TEXTS) - reference_vectors(made)).max() > 0.01
    assert [file for file in hub.downloaded() if file.startswith(f"{folder}answers/")] == []
    assert exports == [NAME, NAME]


def test_a_name_that_has_a_new_commit_is_exported_again_and_the_old_one_is_still_there(
    hub: FakeHub, made: Path, other: Path, exports: list[str]
) -> None:
    first = hub.add(NAME, contents(made))
    gives(made)
    hub.add(NAME, contents(other))
    gives(other)
    hub.requests.clear()
    gives(made, revision=first)
    assert hub.requests == []  # a commit never changes
    assert exports == [NAME, NAME]


def test_the_second_time_needs_no_hub_no_download_and_no_package_of_the_export(
    hub: FakeHub, made: Path, offline: Any
) -> None:
    hub.add(NAME, contents(made))
    said = r"acme/tiny is a checkpoint .*pip install 'fastembed-rt\[export\]'"
    with without_export(), pytest.raises(MissingDependencyError, match=said):
        opened()
    assert hub.downloaded() == []  # said before gigabytes came
    gives(made)
    hub.requests.clear()
    with without_export():
        gives(made, local_files_only=True)
        offline()
        gives(made)
        shutil.rmtree(hub_cache())
        gives(made)
    assert hub.requests == []


def test_without_a_connection_the_commit_that_was_known_last_is_opened(
    hub: FakeHub, made: Path, exports: list[str]
) -> None:
    hub.add(NAME, contents(made))
    gives(made)
    shutil.rmtree(hub_cache())
    for status in (429, 503):
        hub.broken_paths[f"/api/models/{NAME}"] = status
        gives(made)
    assert exports == [NAME]


def test_what_the_hubs_cache_was_told_later_counts(
    hub: FakeHub, made: Path, other: Path, exports: list[str], offline: Any
) -> None:
    from fastembed_rt.hub.resolve import resolve_checkpoint

    hub.add(NAME, contents(made))
    gives(made)
    hub.add(NAME, contents(other))
    resolve_checkpoint(NAME)  # by another program
    offline()
    gives(other)
    assert exports == [NAME, NAME]


def test_a_checkpoint_in_the_hubs_cache_is_exported_offline(hub: FakeHub, made: Path, offline: Any) -> None:
    from fastembed_rt.hub.resolve import resolve_checkpoint

    hub.add(NAME, contents(made))
    resolve_checkpoint(NAME)
    hub.requests.clear()
    offline()
    gives(made)
    assert hub.requests == []


def test_what_is_nowhere_offline_is_said(hub: FakeHub, offline: Any) -> None:
    offline()
    with pytest.raises(ModelNotFoundError, match="not in the cache"):
        opened()
    with pytest.raises(ModelNotFoundError, match="not in the cache"):
        opened(revision="0" * 40)


def test_a_repository_that_holds_a_model_directory_is_opened(
    hub: FakeHub, made: Path, tmp_path: Path, exports: list[str], offline: Any
) -> None:
    quick(made, tmp_path / "model")
    # Beside the checkpoint that it is from.
    commit = hub.add(NAME, {**contents(made), **contents(tmp_path / "model")})
    cases: list[dict[str, Any]] = [{}, {"revision": commit}, {"local_files_only": True}, {"revision": "main"}]
    with without_export():
        for options in cases:
            gives(made, **options)
        offline()
        gives(made)
    assert exports == []


def test_errors_of_the_hub_are_those_of_other_models(hub: FakeHub, made: Path) -> None:
    hub.add("acme/private", contents(made), private_token="hf_right")
    cases: dict[str, dict[str, Any]] = {
        "acme/nowhere": {},
        "acme/private": {},
        "acme/private ": {},
        "no such name!": {},
    }
    for name, options in cases.items():
        with pytest.raises(ModelNotFoundError, match="there is no directory"):
            opened(name, **options)
    with pytest.raises(ModelNotFoundError, match="has no revision 'v2'"):
        hub.add(NAME, contents(made))
        opened(revision="v2")
    with opened("acme/private", token="hf_right") as model:
        close(model.encode(TEXTS), reference_vectors(made))
    with pytest.raises(FastembedRtError, match="token"):
        opened(token=True)


def test_the_token_goes_with_every_request(hub: FakeHub, made: Path) -> None:
    hub.add(NAME, contents(made), private_token="hf_right")
    opened(token="hf_right").close()
    assert {request.token for request in hub.requests if not request.path.startswith("/large/")} == {"hf_right"}


def test_the_folders_of_routes_come_too(hub: FakeHub, tmp_path: Path) -> None:
    made = save_inference_free(tmp_path / "made")
    hub.add(NAME, contents(made))
    with SparseModel.from_checkpoint(made, verify=False) as local, SparseModel.from_checkpoint(NAME) as model:
        for encode in ("encode_query", "encode_document"):
            found, wanted = getattr(model, encode)("a dog runs"), getattr(local, encode)("a dog runs")
            np.testing.assert_array_equal(found.indices, wanted.indices)
            np.testing.assert_array_equal(found.values, wanted.values)


def test_code_of_a_repository_is_the_reference_where_it_is_trusted(hub: FakeHub, tmp_path: Path) -> None:
    made = save_sentence_transformers(tmp_path / "made", "new")
    hub.add(NAME, contents(made))
    with opened(verify=True) as model:
        assert model.manifest.parity["status"] == "not verified"
    with opened(verify=True, trust_remote_code=True) as model:
        assert model.manifest.parity["status"] == "passed"
