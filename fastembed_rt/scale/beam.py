"""Apache Beam: a ModelHandler for RunInference, on any of its runners."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .embed import Embed
from .required import required

base: Any = required("apache_beam.ml.inference.base", "beam")
BATCH_SIZE = 1024  # elements at most; Beam begins with few and grows while that is faster


class EmbedHandler(base.ModelHandler):  # type: ignore[misc]
    """What RunInference takes: elements are texts, or dicts with the columns of texts; out come PredictionResults.

    The `inference` of a PredictionResult is a vector (dim,), a score, or a row's result of another task.
    """

    def __init__(
        self,
        embed: Embed,
        *,
        threads: int = 1,
        share: bool = False,
        min_batch_size: int = 64,
        max_batch_size: int = BATCH_SIZE,
    ) -> None:
        """Nothing is opened here.

        Args:
            embed: the model and its columns.
            threads: of its model. Runners start one process a CPU, or one a machine with many threads, and do not say
                which: 1 suits the former. An Embed that was made with threads= keeps its own.
            share: one model for all worker processes of a machine (Beam's share_model_across_processes).
            min_batch_size: elements, where as many wait.
            max_batch_size: elements.
        """
        super().__init__(min_batch_size=min_batch_size, max_batch_size=max_batch_size)
        self._embed = embed if embed.threads is not None else embed.replaced(threads=threads)
        self._share = share

    def load_model(self) -> Embed:
        """The Embed with its model open."""
        _ = self._embed.model
        return self._embed

    def run_inference(
        self, batch: Sequence[Any], model: Embed, inference_args: Mapping[str, Any] | None = None
    ) -> Iterable[Any]:
        """A PredictionResult for each element."""
        if isinstance(batch[0], str):
            columns: list[list[Any]] = [list(batch)]
        else:
            columns = [
                [element[name] for element in batch] for name in self._embed.columns
            ]  # a shared model is a proxy with methods alone
        results = model.results(*columns)
        return [base.PredictionResult(*pair, "fastembed_rt") for pair in zip(batch, results, strict=True)]

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        """Of the texts, for Beam's metrics."""
        rows = (
            [element] if isinstance(element, str) else (element[name] for name in self._embed.columns)
            for element in batch
        )
        return sum(len(text) for row in rows for text in row if text is not None)

    def get_metrics_namespace(self) -> str:
        """Of Beam's metrics."""
        return "fastembed_rt"

    def share_model_across_processes(self) -> bool:
        """As asked for."""
        return self._share
