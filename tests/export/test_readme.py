"""What README tells a new user to type: its Python runs as written, its commands are those of the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, save_sentence_transformers
from cross_encoders import save_classifier
from exports import quick
from test_late_interaction import save_multi_vector  # type: ignore[import-not-found]
from test_sparse import save_splade  # type: ignore[import-not-found]

from fastembed_rt import cli

README = Path(__file__).parents[2] / "README.md"
GPU = "provider="  # what only a machine with a GPU runs


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands() -> Iterator[list[str]]:
    """The words behind `fastembed-rt` in each line of the shell blocks."""
    for line in "".join(blocks("sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == [cli.PROG]:
            yield words[1:]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the models and files that README names, small and random."""
    root = tmp_path_factory.mktemp("readme")
    prompts = {"query": "query: ", "document": "passage: "}
    save_sentence_transformers(root / "my-finetuned-model", dense=264, prompts=prompts)
    quick(root / "my-finetuned-model", root / "my-model")
    quick(save_classifier(root / "reranker"), root / "my-reranker")
    quick(save_splade(root / "splade"), root / "my-splade")
    quick(save_multi_vector(root / "colbert"), root / "my-colbert")
    for name in ("big.txt", "texts.txt"):
        (root / name).write_text("a dog runs\nthe house is red\n\n")
    return root


def test_every_block_of_python_runs_as_written(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    found = blocks("python")
    assert len(found) >= 5
    names: dict[str, Any] = {"texts": TEXTS, "documents": TEXTS}
    for block in found:
        script = compile(block, "README.md", "exec")
        if GPU not in block:
            exec(script, names)
    assert names["vector"].shape == (264,)
    assert names["one"].shape == names["other"].shape == (264,)
    assert names["bits"].shape == (len(TEXTS), 32)


def test_the_blocks_that_open_a_model_need_nothing_before_them(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    alone = [block for block in blocks("python") if "import EmbeddingModel" in block]
    assert len(alone) == 2
    for block in alone:
        exec(compile(block, "README.md", "exec"), {})


def test_every_command_is_one_that_the_command_line_takes() -> None:
    found = list(commands())
    assert {words[0] for words in found} == set(cli.COMMANDS)
    for words in found:
        cli.build_parser().parse_args(words)


def test_the_commands_do_what_readme_says(workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From the checkpoint to vectors in a file; the hub's and the GPU's lines, bench and doctor aside."""
    monkeypatch.chdir(tmp_path)
    for name in ("my-finetuned-model", "texts.txt"):
        (tmp_path / name).symlink_to(workspace / name)
    done = []
    for words in commands():
        skipped = words[0] in ("bench", "doctor") or "--target" in words or "sentence-transformers/" in words[1]
        if not skipped:
            assert cli.main([*words, *(["--force"] if words[0] == "export" else [])]) == 0, words
            done.append(words[0])
    assert done == ["export", "export", "verify", "embed", "info"]
    assert np.load("vectors.npy").shape == (3, 264)
