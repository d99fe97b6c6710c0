"""What is told of a run while it goes on: a tqdm bar at a terminal, else a line each so many seconds, and a file.

The figures are a record (`figures`), which the line, the bar and the file show.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ..errors import InvalidInputError
from ..system.progress import watched
from ..system.terminal import columns
from .encoder import Counts
from .streams import Meter

EVERY = 30.0  # seconds between two lines of a log
REWRITTEN = 5.0  # seconds between two states of the metrics file
REDRAWN = 0.5  # seconds between two states of the bar: a part may take a minute, and a bar that stands looks dead
WIDE = 100  # columns of a terminal from which on the bar has room for the shares
PROMETHEUS = ".prom"
NAMES = {  # of the metrics file, with what they count
    "rows": "rows that are done, those of earlier runs included",
    "rows_total": "rows of all inputs; estimated by their bytes where only reading tells",
    "rows_per_second": "rows of this run",
    "tokens": "tokens that went through the model",
    "tokens_per_second": "tokens of this run",
    "padding_share": "of what went through the model, the share that was padding",
    "duplicate_share": "of this run's rows, the share whose text had been encoded before",
    "cache_share": "of this run's rows, the share whose vector came from --cache",
    "rejected": "rows without a vector",
    "parts": "parts of this run",
    "bytes_read": "bytes of the inputs, as they are stored",
    "bytes_written": "bytes of this run's parts",
    "seconds": "since the run began",
    "seconds_left": "estimated",
}


@dataclass
class Watch:
    """What a run counts."""

    meter: Meter = field(default_factory=Meter)
    counts: Counts = field(default_factory=Counts)
    bytes_written: int = 0
    parts: int = 0
    rows_there: int = 0  # of parts that an earlier run wrote
    rows_read: int = 0
    total_rows: int | None = None
    total_bytes: int = 0
    live: Callable[[], tuple[int, int]] | None = None  # texts and tokens of the model up to now
    started: float = field(default_factory=time.monotonic)

    def figures(self) -> dict[str, float]:
        """All that is told, by name; what is not known is left out."""
        counts, seconds = self.counts, time.monotonic() - self.started
        texts, tokens = (0, 0) if self.live is None else self.live()
        # The model is within a part, of which `counts` hears at its end.
        rows = counts.rows + max(texts - counts.encoded, 0)
        tokens = max(tokens, counts.tokens)
        made: dict[str, float] = {"rows": rows + self.rows_there}
        total = self.total_rows
        read = self.meter.read
        if total is None and read and self.rows_read:
            total = round(self.rows_read * max(self.total_bytes / read, 1.0))
        if total is not None:
            made["rows_total"] = max(total, made["rows"])
        made["rows_per_second"] = rows / max(seconds, 1e-9)
        made |= {"tokens": tokens, "tokens_per_second": tokens / max(seconds, 1e-9)}
        if counts.slots:
            made["padding_share"] = 1 - counts.tokens / counts.slots
        if counts.rows:
            made["duplicate_share"] = counts.duplicates / counts.rows
            made["cache_share"] = counts.cached / counts.rows
        made |= {"rejected": counts.rejected, "parts": self.parts}
        made |= {"bytes_read": read, "bytes_written": self.bytes_written, "seconds": seconds}
        if total is not None and rows:
            made["seconds_left"] = max(total - made["rows"], 0) * seconds / rows
        return made


def line(figures: dict[str, float]) -> str:
    """The figures for a log."""
    of = f" of {figures['rows_total']:.0f}" if "rows_total" in figures else ""
    parts = [f"{figures['rows']:.0f}{of} rows", f"{figures['rows_per_second']:.0f} rows/s"]
    parts.append(f"{figures['tokens_per_second']:.0f} tokens/s")
    shares = {"padding": "padding_share", "duplicates": "duplicate_share", "cache": "cache_share"}
    parts += [f"{name} {figures[key]:.1%}" for name, key in shares.items() if figures.get(key)]
    if figures["rejected"]:
        parts.append(f"{figures['rejected']:.0f} rejected")
    parts.append(f"{figures['bytes_written'] / 1e6:.1f} MB written")
    if "seconds_left" in figures:
        parts.append(f"{duration(figures['seconds_left'])} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def metrics(figures: dict[str, float], *, prometheus: bool) -> str:
    """The figures for the file: JSON, or what Prometheus' textfile collector takes."""
    if not prometheus:
        return json.dumps({name: figures[name] for name in NAMES if name in figures}) + "\n"
    made = []
    for name, said in NAMES.items():
        if name in figures:
            full = f"fastembed_rt_embed_{name}"
            made += [f"# HELP {full} {said}", f"# TYPE {full} gauge", f"{full} {figures[name]:.12g}"]
    return "\n".join(made) + "\n"


class Telling:
    """Tells of a watch until its block ends."""

    def __init__(
        self,
        watch: Watch,
        *,
        quiet: bool = False,
        every: float = EVERY,
        file: Path | None = None,
        out: TextIO | None = None,
    ) -> None:
        self._watch, self._every, self._file = watch, every, file
        self._out = sys.stderr if out is None else out
        self._lines = not quiet and self._out is not None and not watched()
        self._bar: Any = None
        self._quiet = quiet
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Telling:
        try:
            self._write()  # a file that cannot be written is an error before the work begins
        except (OSError, ValueError) as error:  # the latter: a name without a last part, such as "."
            reason = getattr(error, "strerror", None) or error
            raise InvalidInputError(f"--metrics-file {self._file} cannot be written ({reason})") from error
        if not self._quiet and watched():
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._watch.total_rows, unit=" rows", file=sys.stderr, leave=False, dynamic_ncols=True
            )
        if self._lines or self._file is not None or self._bar is not None:
            self._thread = threading.Thread(target=self._tell, name="fastembed_rt_progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._bar is not None:
            self._bar.close()
        with contextlib.suppress(OSError):
            self._write()

    def _draw(self) -> None:
        figures = self._watch.figures()
        if "rows_total" in figures:
            self._bar.total = int(figures["rows_total"])
        self._bar.n = int(figures["rows"])
        if (columns(sys.stderr) or WIDE) < WIDE:
            self._bar.refresh()
            return
        shares = {"tokens/s": f"{figures['tokens_per_second']:.0f}"}
        shares |= {
            name: f"{figures[key]:.1%}"
            for name, key in (("padding", "padding_share"), ("dup", "duplicate_share"), ("cache", "cache_share"))
            if figures.get(key)
        }
        self._bar.set_postfix(shares, refresh=True)

    def _tell(self) -> None:
        said = written = time.monotonic()
        pause = min(self._every, REWRITTEN) if self._bar is None else REDRAWN
        while not self._over.wait(pause):
            now = time.monotonic()
            with contextlib.suppress(OSError, ValueError):  # a log that is full or closed stops no work
                if self._bar is not None:
                    self._draw()
                if self._lines and now - said >= self._every:
                    said = now
                    print(line(self._watch.figures()), file=self._out, flush=True)
            if now - written >= min(self._every, REWRITTEN):
                written = now
                with contextlib.suppress(OSError):
                    self._write()

    def _write(self) -> None:
        if self._file is None:
            return
        content = metrics(self._watch.figures(), prometheus=self._file.suffix == PROMETHEUS)
        fresh = self._file.with_name(f".{self._file.name}.{os.getpid()}")  # whoever reads it sees a whole state
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(self._file)
