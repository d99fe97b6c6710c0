"""Hugging Face datasets: `map` in batches, over processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import machine
from .embed import Embed
from .required import required

BATCH_SIZE = 4096  # rows: what `encode` sorts by length at a time


@dataclass(frozen=True)
class Added:
    """What `map` calls: columns of texts, and back comes the new column alone, so that no other is written again.

    Its pickle names the model's files, so that datasets' cache knows another model from this one.
    """

    embed: Embed
    output: Any

    def __call__(self, *columns: Any) -> dict[str, Any]:
        """{into: results}."""
        return {self.embed.into: self.output.numpy(self.embed.results(*columns))}


def apply(
    dataset: Any, embed: Embed, *, num_proc: int | None = None, batch_size: int = BATCH_SIZE, **options: Any
) -> Any:
    """A Dataset, DatasetDict or IterableDataset with the column of an Embed.

    Args:
        dataset: with the columns of texts.
        embed: what to add; without threads= its model has this machine's CPUs divided by `num_proc`.
        num_proc: processes, each with its own model; None: this one, whose model uses all CPUs.
        batch_size: rows.
        **options: of `map`, such as keep_in_memory= or load_from_cache_file=.
    """
    features = required("datasets", "datasets").features
    if num_proc is not None:
        options["num_proc"] = num_proc
        if embed.threads is None:
            embed = embed.replaced(threads=max(1, machine.available_threads() // num_proc))
    known = getattr(dataset, "features", None)
    if known is not None and "features" not in options:
        added = features.features.generate_from_arrow_type(embed.arrow_type)
        options["features"] = features.Features({**known, embed.into: added})
    return dataset.map(
        Added(embed, embed._plan.output),
        batched=True,
        batch_size=batch_size,
        input_columns=list(embed.columns),
        **options,
    )
