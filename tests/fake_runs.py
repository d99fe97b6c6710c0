"""A whole run of the benchmark suite over fake contenders: their processes are real, their encoders a few lines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks.compare import environments, other_tasks, processes, runner
from benchmarks.compare.contenders import Contender
from benchmarks.compare.preparation import Preparation
from benchmarks.compare.processes import Process
from benchmarks.errors import ContenderError
from benchmarks.report.records import REFERENCE

FAKE = Path(__file__).parent / "benchmarks" / "fake_contender.py"
CHECK_CALLS = 1 + 82  # the workload; then 80 texts together, alone, and in another order
Run = Callable[..., tuple[int, dict[str, Any]]]


@dataclass
class Source:
    checkpoint: str = "fake"
    model_type: str = "bert"


def word_tokenizer() -> Tokenizer:
    """A token a word, and one at each end, as the fake contender counts them."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal_signals: None) -> Run:
    """main() over fake contenders, named with their behaviour; returns exit code and record."""
    data = tmp_path / "data" / "texts"
    data.mkdir(parents=True)
    names = ("short_queries_squad_dev", "medium_stsb_dev_sentences", "paragraph_xquad_contexts", "paragraph_wikitext2")
    for name in names:
        lines = [json.dumps(f"{name} text {k}" + " long" * (k % 2) * 400) for k in range(4000)]
        (data / f"{name}.jsonl").write_text("\n".join(lines))
    word_tokenizer().save(str(tmp_path / "tokenizer.json"))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "modules.json").write_text("[]")
    model = SimpleNamespace(
        task="embedding", max_length=16, variants=[SimpleNamespace(precision="fp32")], source=Source()
    )
    monkeypatch.setattr("benchmarks.compare.runner.manifest.read", lambda path: model)

    def start(self: Preparation, contender: Contender, mode: str, folder: Path | None = None) -> Process:
        options = {
            **dict.fromkeys(("checkpoint", "model_dir", "prepared", "calibration"), ""),
            "max_length": 16,
            "threads": self.threads,
            "cpus": list(self.cpus),
            "own": {
                "name": contender.name,
                "journal": str(tmp_path / "journal"),
                "task": model.task,
                **contender.options,
            },
        }
        command = [sys.executable, str(FAKE), mode, json.dumps(options)]
        return Process(command, log=self.logs / "log", cwd=tmp_path, environment=os.environ)

    def ensure(environment: Any) -> list[str]:
        if environment.name == "light-embed":
            raise ContenderError("installing light-embed: ERROR: no such package")
        return ["numpy==0"]

    monkeypatch.setattr(Preparation, "start", start)
    monkeypatch.setattr(Preparation, "prepare", lambda self, contender: None)
    monkeypatch.setattr(environments, "ensure", ensure)
    monkeypatch.setattr(environments, "size", lambda environment: 1_000_000)

    def go(behaviours: dict[str, dict[str, str]], *words: str, task: str = "embedding") -> tuple[int, dict[str, Any]]:
        model.task = task
        described: dict[str, dict[str, str]] = {REFERENCE: {}, **behaviours}
        rows = [
            Contender(
                name=name,
                title=name.upper(),
                environment=own.pop("environment", "fastembed"),
                adapter="fake",
                options=own,
                precision=own.pop("precision", None),
                no_cold_start=own.pop("no_cold_start", None),
                ours=own.pop("ours", "") == "yes",
            )
            for name, own in described.items()
        ]
        monkeypatch.setattr(other_tasks, "named", lambda kind, names: rows)
        out = tmp_path / "out"
        given = [str(tmp_path), "--checkpoint", str(checkpoint), "--data", str(data.parent), "--workloads", "smoke"]
        given += ["--parts", "cold,throughput,latency"]
        code = runner.main([*given, "--out", str(out), "--cold-rounds", "1", *words])
        assert not processes.LIVING
        record = out / runner.RECORD
        return code, json.loads(record.read_text()) if record.exists() else {}

    return go
