"""What `embed` says when it is done."""

from __future__ import annotations

import pytest
from test_cli import StandInModel, give_stdin, models  # type: ignore[import-not-found]

from fastembed_rt import cli

__all__ = ["models"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "prompt 'query' 'Frage: ', the model's default"),
        (["--prompt-name", "query"], "prompt 'query' 'Frage: '"),
        (["--prompt-name", "none"], None),
        (["--prompt", "Frage: "], None),
    ],
)
def test_the_summary_says_which_prompt_stood_before_each_text(
    models: list[StandInModel],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str | None,
) -> None:
    monkeypatch.setattr(StandInModel, "default_prompt_name", "query")
    give_stdin(monkeypatch, b"a\n")
    assert cli.main(["embed", "MODEL", *options]) == 0
    told = capsys.readouterr().err.strip().split(" texts/s")[1]
    assert told == ("" if said is None else f", {said}")
