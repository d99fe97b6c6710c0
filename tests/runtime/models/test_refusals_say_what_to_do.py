"""What is said of a model that cannot be opened as asked, in the words of where it was asked."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from fastembed_rt import EmbeddingModel, Reranker, cli
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, UnknownPromptError
from fastembed_rt.precisions import lacking
from fastembed_rt.run.providers import PROVIDERS


@pytest.mark.parametrize("name", [None, 3, b"model", ["a"]], ids=repr)
def test_a_model_that_is_no_name(name: Any) -> None:
    for call in (EmbeddingModel, Reranker, EmbeddingModel.from_checkpoint):
        with pytest.raises(InvalidTypeError, match=f"the model is {type(name).__name__}, expected a str or a path"):
            call(name)


def test_a_prompt_that_the_model_lacks_is_named_in_the_words_of_the_command_line(
    model_dir: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text("a dog\n", encoding="utf-8")
    assert cli.main(["embed", str(model_dir), str(tmp_path / "texts.txt"), "--prompt-name", "red"]) == 2
    said = capsys.readouterr().err
    assert "the model has no prompt 'red'; it has document, query; pass --prompt TEXT for another" in said
    assert "prompt=" not in said
    assert cli.main(["serve", str(model_dir), "--port", "0", "--default-prompt-name", "red"]) == 2
    assert "pass --default-prompt TEXT for another" in capsys.readouterr().err


def test_in_python_it_is_the_argument(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError, match="pass prompt=TEXT for another") as caught:
        model.encode("a", prompt_name="red")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (UnknownPromptError, str(caught.value))


def test_a_directory_without_graphs_for_a_gpu_says_how_they_are_exported(model: EmbeddingModel) -> None:
    of_the_cpu = [variant for variant in model.manifest.variants if variant.target != "portable"]
    for precision in ("int8", "fp32"):
        assert "export again with --target cuda" in lacking(precision, "cuda", PROVIDERS["cuda"].targets, of_the_cpu)
    assert "--target" not in lacking("int8", "cuda", PROVIDERS["cuda"].targets, model.manifest.variants)
