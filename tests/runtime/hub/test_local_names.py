"""Names of local directories: what a manifest calls a checkpoint, and what is said of a name that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_hub import FakeHub

from fastembed_rt import EmbeddingModel, cli, manifest
from fastembed_rt.errors import CheckpointError, ModelNotFoundError
from fastembed_rt.hub.resolve import resolve_checkpoint, resolve_model
from fastembed_rt_export.directory.card import card

COMMIT = "c" * 40


def no_files(_: object) -> tuple[str, ...]:
    return ()


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two models in it."""
    for name in ("my-model", "models/minilm"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# A name that is not there.


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("my-modle", "my-model"),
        ("./my-modle", "my-model"),
        ("models/minilmm", "models/minilm"),
        ("model/minilm", "models/minilm"),
        ("./model/minilm", "models/minilm"),
    ],
)
def test_a_mistyped_directory_is_looked_for_and_both_are_said(
    inside: Path, hub: FakeHub, typed: str, meant: str
) -> None:
    for resolve in (
        lambda: resolve_model(typed, files=no_files),
        lambda: resolve_checkpoint(typed),
    ):
        with pytest.raises(ModelNotFoundError) as error:
            resolve()
        said = str(error.value)
        assert f"(did you mean '{meant}'?)" in said
        assert "\n" not in said
        if typed.startswith("./"):
            assert said.startswith(f"directory {typed} does not exist (from {inside})")
            assert hub.requests == []
        else:
            assert said.startswith(f"there is no directory '{typed}' here (did you mean")
            assert f"as a hub repository: '{typed}' is not to be seen at {hub.url}" in said


def test_offline_both_are_said_too(inside: Path, hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError) as error:
        resolve_model("my-modle", files=no_files, local_files_only=True)
    assert str(error.value).startswith(
        "there is no directory 'my-modle' here (did you mean 'my-model'?); as a hub repo"
    )
    assert "local_files_only" in str(error.value)


def test_nothing_is_made_up_where_nothing_is_near(inside: Path, hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError) as error:
        resolve_model("acme/encoder", files=no_files)
    assert str(error.value).startswith("there is no directory 'acme/encoder' here; as a hub repository: ")


def test_a_model_directory_is_no_checkpoint(model_dir: Path) -> None:
    with pytest.raises(CheckpointError, match="is a model directory already; export takes the checkpoint"):
        resolve_checkpoint(model_dir)


# What a manifest says.


@pytest.mark.parametrize(
    ("place", "name", "revision"),
    [
        ("runs/my-run/model", "my-run/model", None),
        ("runs/my-run/checkpoint-500", "my-run/checkpoint-500", None),
        ("runs/my-run/best_model", "my-run/best_model", None),
        ("runs/my-run/final", "my-run/final", None),
        ("runs/my-encoder", "my-encoder", None),
        ("runs/model-of-acme", "model-of-acme", None),
        ("home/alice/model", "model", None),  # a manifest tells the world no user's name
        (f"hub/models--acme--encoder/snapshots/{COMMIT}", "acme/encoder", COMMIT),
        ("hub/models--acme--encoder/snapshots/main", "main", None),
    ],
)
def test_a_local_checkpoint_has_a_name_that_tells_which_it_is(
    tmp_path: Path, place: str, name: str, revision: str | None
) -> None:
    (tmp_path / place).mkdir(parents=True)
    found = resolve_checkpoint(tmp_path / place)
    assert (found.name, found.revision) == (name, revision)


def test_a_directory_called_model_is_told_apart_in_repr_card_and_info(
    pair: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint: Path = pair.checkpoint  # type: ignore[attr-defined]
    real = tmp_path / "real" / "model"
    real.mkdir(parents=True)
    for path in checkpoint.iterdir():
        (real / path.name).symlink_to(path)
    assert cli.main(["export", str(real), "-o", str(tmp_path / "out"), "--no-verify", "-q"]) == 0
    described = manifest.read(tmp_path / "out")
    assert described.source.checkpoint == "real/model"
    assert "# real/model, as ONNX\n\nExported from `real/model`, a local directory" in card(described)
    with EmbeddingModel(tmp_path / "out", threads=1) as model:
        assert "real/model" in repr(model)
    assert cli.main(["info", str(tmp_path / "out")]) == 0
    assert "real/model, a local directory" in capsys.readouterr().out


# verify


def test_verify_does_not_ask_the_hub_for_a_local_directory(
    model_dir: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    source = manifest.read(model_dir).source
    assert source.revision is None
    assert cli.main(["verify", str(model_dir)]) == 2
    said = f"exported from a local directory named {source.checkpoint!r}; pass --against PATH"
    assert said in capsys.readouterr().err
    assert hub.requests == []


def test_verify_asks_the_hub_for_what_came_from_it(
    model_dir: Path, hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.loads((model_dir / "manifest.json").read_text())
    body["source"].update(checkpoint="acme/encoder", revision=COMMIT)
    (tmp_path / "manifest.json").write_text(json.dumps(body))
    assert cli.main(["verify", str(tmp_path)]) == 3
    assert any("acme/encoder" in request.path for request in hub.requests)


def test_verify_says_that_a_directory_is_not_there(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "my-modle"]) == 3
    assert "model directory my-modle does not exist (did you mean 'my-model'?)" in capsys.readouterr().err
