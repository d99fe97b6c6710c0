"""`fastembed-rt mcp`: which models it opens. What its tools answer is tried with the protocol's own client."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cross_encoders import save_cross_encoder
from exports import quick

from fastembed_rt.cli import main


def test_the_reranker_is_opened_in_its_own_precision_and_gives_one_score(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick(pair.checkpoint, tmp_path / "model", precisions=("fp32", "bf16"))
    quick(save_cross_encoder(tmp_path / "reranker"), tmp_path / "my-reranker")
    opened: list[tuple[str, str]] = []

    def make_server(model: Any, *, reranker: Any, folder: Any) -> None:
        opened.extend((each.task, each.precision) for each in (model, reranker))
        for each in (model, reranker):
            each.close()

    served = SimpleNamespace(check_streams=lambda: None, make_server=make_server, serve=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "fastembed_rt.integrations.mcp.server", served)
    monkeypatch.setattr("fastembed_rt.integrations.mcp.server", served, raising=False)
    command = ["mcp", tmp_path / "model", "--reranker", tmp_path / "my-reranker", "--precision", "bf16"]
    assert main([*map(str, command)]) == 0
    assert opened == [("embedding", "bf16"), ("reranking", "fp32")]
    quick(save_cross_encoder(tmp_path / "three", labels=3), tmp_path / "labels")
    command = ["mcp", tmp_path / "model", "--reranker", tmp_path / "labels"]
    assert main([*map(str, command)]) == 2
    assert "--reranker gives 3 scores a pair" in capsys.readouterr().err
