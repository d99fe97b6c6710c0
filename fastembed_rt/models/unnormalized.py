"""The encoder of an embedding model that normalizes in its graph, with vectors as they are before that."""

from __future__ import annotations

from dataclasses import replace

from ..run.session import UNNORMALIZED
from .embedding import EmbeddingModel
from .options import Settings


class UnnormalizedEncoder(EmbeddingModel):
    """Another session of the model's graph, which the model makes and holds."""

    _output = UNNORMALIZED

    def _announce(self) -> None:
        """It travels with the model whose it is."""

    def _check_files(self) -> None:
        """They were checked with the model."""

    def _settings(
        self, prompt_name: str | None, prompt: str | None, truncate_dim: int | None, normalize: bool | None
    ) -> Settings:
        made = super()._settings(prompt_name, prompt, truncate_dim, None)
        return replace(made, normalize=False, normalized_already=False)
