"""Commands that open a model from the hub, whatever its task is: what they ask the hub for."""

from __future__ import annotations

from pathlib import Path

import pytest
from exports import contents
from fake_hub import FakeHub
from hub_repositories import NAME

from fastembed_rt import cli


def test_the_branch_is_looked_up_once_and_what_it_was_is_opened(
    hub: FakeHub, model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between looking at the manifest and loading the model, the branch may move on."""
    commit = hub.add(NAME, contents(model_dir))
    words = ["similar", NAME, "a dog runs", "a cat", "--cache-dir", str(tmp_path / "cache"), "-q"]
    assert cli.main(words) == 0
    of_main = [request.path for request in hub.requests if "/resolve/main/" in request.path]
    assert {path.rpartition("/")[2] for path in of_main} == {"manifest.json"}
    assert hub.revisions_asked() == {"main", commit}
    assert cli.main(["similar", str(model_dir), "a dog runs", "a cat", "-q"]) == 0
    first, again = capsys.readouterr().out.splitlines()
    assert first == again
    hub.requests.clear()
    assert cli.main([*words, "--local-files-only"]) == 0
    assert hub.requests == []


def test_a_model_in_the_home_directory_is_no_repository(
    hub: FakeHub, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(model_dir.parent))
    assert cli.main(["similar", f"~/{model_dir.name}", "a dog runs", "a cat", "-q"]) == 0
    assert hub.requests == []


def test_a_reranker_is_refused_by_embed_before_its_weights_are_fetched(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cross_encoders import save_classifier
    from exports import quick

    quick(save_classifier(tmp_path / "checkpoint"), tmp_path / "model")
    hub.add(NAME, contents(tmp_path / "model"))
    (tmp_path / "texts.txt").write_text("a\n", encoding="utf-8")
    assert cli.main(["embed", NAME, str(tmp_path / "texts.txt"), "--cache-dir", str(tmp_path / "cache")]) == 2
    assert f"{NAME} holds a model for reranking" in capsys.readouterr().err
    assert set(hub.downloaded()) == {"manifest.json"}
