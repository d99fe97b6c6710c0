"""What a run tells of itself: figures, files of them, lines."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from pathlib import Path

import pytest
from bulk_jobs import encoder, execute

from fastembed_rt.bulk import progress
from fastembed_rt.bulk.encoder import Encoding


def test_figures_and_files_of_them(tmp_path: Path, source: Path) -> None:
    for name in ("figures.json", "figures.prom"):
        watch = progress.Watch()
        with progress.Telling(watch, quiet=True, file=tmp_path / name):
            execute([source], tmp_path / name.replace(".", "-"), watch=watch)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (figures["rows"], figures["parts"], figures["tokens"]) == (30, 8, 90)
    assert figures["bytes_read"] == source.stat().st_size
    assert figures["seconds_left"] == 0
    lines = (tmp_path / "figures.prom").read_text().splitlines()
    assert "fastembed_rt_embed_rows 30" in lines
    assert "# TYPE fastembed_rt_embed_rows gauge" in lines


def test_padding_is_counted_with_the_batches_that_run() -> None:
    made = encoder(padded=lambda lengths: max(lengths) * len(lengths))
    encoding = Encoding(made)
    encoding.vectors({0: "one", 1: "one two three"}, [None, None])
    assert (encoding.counts.tokens, encoding.counts.slots) == (4, 6)
    watch = progress.Watch(counts=encoding.counts)
    assert watch.figures()["padding_share"] == pytest.approx(1 / 3)


def test_a_line_each_so_many_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = progress.Watch(total_rows=10)
    watch.counts.rows = 5
    with progress.Telling(watch, every=0.05):
        time.sleep(0.4)
    said = capsys.readouterr().err.splitlines()
    assert 1 <= len(said) <= 8
    assert said[0].startswith("5 of 10 rows, ")
    assert "left" in said[0]
    assert progress.duration(3723) == "1:02:03"
    assert progress.duration(59.7) == "01:00"


def test_the_bar_moves_within_a_part_and_keeps_to_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(progress, "REDRAWN", 0.01)
    monkeypatch.setenv("COLUMNS", "60")
    done = iter(range(1, 1000))
    watch = progress.Watch(total_rows=1000, live=lambda: (next(done), 0))
    with progress.Telling(watch):
        time.sleep(0.5)
    assert watch.counts.rows == 0  # the part is not done
    seen = [int(rows) for rows in re.findall(r" (\d+)/1000 ", shown.getvalue())]
    assert len(set(seen)) > 3
    assert seen == sorted(seen)
    assert "tokens/s" not in shown.getvalue()
    monkeypatch.setenv("COLUMNS", "120")
    with progress.Telling(watch):
        time.sleep(0.2)
    assert "tokens/s=" in shown.getvalue()
