"""Home directories: expanded where there are some, and said where there are none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from exports import contents
from fake_hub import FakeHub
from hub_repositories import NAME

from fastembed_rt import EmbeddingModel
from fastembed_rt.cache import entries
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.hub.resolve import located, resolve_model
from fastembed_rt.system import paths, user_cache


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user of a number alone, as containers run them: no HOME, and no entry in the list of users."""
    pwd = pytest.importorskip("pwd")

    def unknown(user: object) -> None:
        raise KeyError(user)

    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(pwd, name, unknown)
    for name in ("HOME", "XDG_CACHE_HOME", user_cache.VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_cache_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match=r"no home directory for '~/.cache'.*set FASTEMBED_RT_CACHE"):
        user_cache.folder("exports")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache.folder("exports") == tmp_path / "fastembed-rt" / "exports"
    monkeypatch.setenv(user_cache.VARIABLE, str(tmp_path / "own"))
    assert user_cache.folder("exports") == tmp_path / "own" / "exports"


@pytest.mark.usefixtures("homeless")
def test_without_a_home_local_directories_are_exported_and_opened(model_dir: Path) -> None:
    assert located(model_dir).path == model_dir
    with EmbeddingModel(model_dir) as model:
        assert model.encode("a dog").shape == (model.dim,)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("options", [{}, {"revision": True}, {"local_files_only": True}], ids=str)
def test_without_a_home_models_of_the_hub_are_opened_where_its_cache_is_named(
    hub: FakeHub, model_dir: Path, options: dict[str, Any]
) -> None:
    commit = hub.add(NAME, contents(model_dir))
    EmbeddingModel(NAME).close()  # which fills the hub's cache
    if "revision" in options:
        options = {"revision": commit}
    with EmbeddingModel.from_checkpoint(NAME, **options) as model:
        assert model.encode("a dog").shape == (model.dim,)
    hub.add("acme/checkpoint", {"config.json": "{}", "model.safetensors": b"1"})
    with pytest.raises(InvalidInputError, match="set FASTEMBED_RT_CACHE"):
        EmbeddingModel.from_checkpoint("acme/checkpoint")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_hubs_cache_is_asked_for(
    hub: FakeHub, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.add(NAME, contents(model_dir))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", os.path.expanduser("~/.cache/huggingface/hub"))  # noqa: PTH111
    monkeypatch.setenv(user_cache.VARIABLE, str(tmp_path / "own"))
    for made in (EmbeddingModel, EmbeddingModel.from_checkpoint):
        for local in (False, True):
            with pytest.raises(InvalidInputError, match=r"no home directory for the hub's cache, ~.*set HF_HOME"):
                made(NAME, local_files_only=local)
        made(NAME, cache_dir=tmp_path / "given").close()


def test_a_cache_in_the_home_directory_may_be_written_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(user_cache.VARIABLE, "~/kept")
    assert user_cache.folder("exports") == tmp_path / "kept" / "exports"


def test_a_home_of_nobody_is_a_name_like_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "~nobody-of-that-name/model"
    assert paths.expanded(name) == Path(name)
    origin = entries.Origin(
        checkpoint="a",
        path=None,
        revision=None,
        identity="1",
        precision="fp32",
        target="cpu",
        options={},
        created_by="",
        created=0.0,
    )
    entry = entries.Entry(directory=tmp_path / "a", task="embedding", origin=origin, size=0, used=0.0)
    assert not entry.named(name)
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)
    assert resolve_model(name, files=lambda _: ()) == Path(name)
