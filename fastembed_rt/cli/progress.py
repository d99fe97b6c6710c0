"""The progress bar of the commands that go through texts."""

from __future__ import annotations

import sys


class Progress:
    """A tqdm bar on standard error if people are watching, else nothing."""

    def __init__(self, *, quiet: bool, total: int | None = None, unit: str = "texts") -> None:
        self._bar = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit=f" {unit}", file=sys.stderr, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self) -> None:
        """One more is done."""
        if self._bar is not None:
            self._bar.update()
