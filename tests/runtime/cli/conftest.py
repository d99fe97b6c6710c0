"""A model of each task, and the commands run with one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from task_models import TEXTS, Exported, Run, save_all

from fastembed_rt import cli


@pytest.fixture(scope="session")
def task_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """See `save_all`."""
    return save_all(tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def run_task(
    task_models: dict[str, Exported],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a command with the model of that name, where texts.jsonl and pairs.csv are: (exit code, out, err)."""
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps({"number": 10 + k, "text": text}) for k, text in enumerate(TEXTS)]
    Path("texts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    Path("pairs.csv").write_text('a,b\nwhich dog runs ?,the house is red\nnew,"a cat, new"\n', encoding="utf-8")

    def call(command: str, name: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        options = [] if command == "info" else ["--threads", "1"]
        code = cli.main([command, str(task_models[name].directory), *arguments, *options])
        return code, *capsys.readouterr()

    return call
