"""Metrics of several workers in one text: counts and sizes are added, and what is said of each is said once."""

from __future__ import annotations

from collections.abc import Iterable

SAID = ("fastembed_rt_info", "process_start_time_seconds")  # the greatest, not the sum


class Totals:
    """Of all workers there have been. What a dead one has counted stays counted, so that no counter ever falls."""

    def __init__(self) -> None:
        self._ended: dict[str, float] = {}  # counters and histograms of workers that are gone
        self._kinds: dict[str, str] = {}

    def ended(self, text: str) -> None:
        """A worker's last text, when it is gone."""
        for sample, value in self._samples(text):
            if self._kind(sample) != "gauge":
                self._ended[sample] = self._ended.get(sample, 0.0) + value

    def text(self, texts: Iterable[str]) -> str:
        """Of the workers that are there."""
        found = dict(self._ended)
        for text in texts:
            for sample, value in self._samples(text):
                if _name(sample) in SAID:
                    found[sample] = max(found.get(sample, value), value)
                else:
                    found[sample] = found.get(sample, 0.0) + value
        families: dict[str, list[str]] = {}
        for sample, value in found.items():
            families.setdefault(self._family(sample), []).append(f"{sample} {value:.17g}")
        lines = []
        for family in sorted(families):
            lines += [f"# TYPE {family} {self._kinds[family]}", *families[family]]
        return "\n".join(lines) + "\n"

    def _samples(self, text: str) -> list[tuple[str, float]]:
        found = []
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, family, kind = line.split()
                self._kinds[family] = kind
            elif line and not line.startswith("#"):
                sample, _, value = line.rpartition(" ")
                found.append((sample, float(value)))
        return found

    def _family(self, sample: str) -> str:
        name = _name(sample)
        for ending in ("_bucket", "_sum", "_count"):
            if name.endswith(ending) and self._kinds.get(name.removesuffix(ending)) == "histogram":
                return name.removesuffix(ending)
        return name

    def _kind(self, sample: str) -> str:
        return "gauge" if _name(sample) in SAID else self._kinds[self._family(sample)]


def _name(sample: str) -> str:
    return sample.partition("{")[0]
