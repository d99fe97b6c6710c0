"""Scores of a pooling and modules behind it, as sentence-transformers chains them since version 5.4 (ettin-reranker).

The last module is a Dense that gives "scores", an output a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..checkpoint.modules import Dense, Head, module_head, pooling_of
from ..checkpoint.transformer import Output
from ..errors import UnsupportedCheckpointError
from ..files import module_entries
from ..graph.graph import Value
from ..graph.ops import Ops
from ..heads import sentence_embedding

STATES = Output("feature-extraction", "last_hidden_state", "token_embeddings", by_role=None)
SCORES = "scores"  # what the last module calls what it gives


@dataclass(frozen=True)
class PooledHead:
    """A pooling, and the modules behind it."""

    modes: tuple[str, ...]
    heads: tuple[Head, ...]
    labels: int
    folders: tuple[Path, ...]  # whose weights these are

    @property
    def modules(self) -> tuple[str, ...]:
        """For people to read."""
        return (f"Pooling({'+'.join(self.modes)})", *map(str, self.heads))

    @property
    def pooling(self) -> str:
        """The one mode, or several."""
        return "+".join(self.modes)

    def logits(self, ops: Ops, states: Value, width: int) -> Value:
        """Token states of `width` -> (B, labels)."""
        return sentence_embedding(ops, states, width, self.modes, self.heads)[0]


def is_pooled(root: Path) -> bool:
    """Whether the reranker in `root` is one of these."""
    return (root / "modules.json").is_file() and "Pooling" in [kind for kind, _ in module_entries(root)]


def head_of(root: Path, notes: list[str]) -> PooledHead:
    """What follows the transformer.

    Raises:
        UnsupportedCheckpointError: another chain, or a prompt that is left out of the pooling.
        CheckpointError: see `module_head`.
    """
    chain = module_entries(root)
    kinds = [kind for kind, _ in chain]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[-1] != "Dense" or chain[0][1]:
        raise UnsupportedCheckpointError(
            f"modules.json has {', '.join(kinds)}; built are cross-encoders of a Transformer, a Pooling, and Dense, "
            f"LayerNorm, Dropout and Normalize behind them, of which the last is a Dense that gives {SCORES!r}"
        )
    modes, include_prompt = pooling_of(root / chain[1][1])
    if not include_prompt:
        raise UnsupportedCheckpointError(f"{root / chain[1][1]} leaves prompts out, which is not built for pairs")
    *between, last = [(kind, root / folder) for kind, folder in chain[2:]]
    heads = [head for kind, folder in between for head in module_head(kind, folder, notes)]
    heads += module_head(*last, notes, gives=SCORES)
    assert isinstance(heads[-1], Dense)
    weighted = tuple(folder for kind, folder in (*between, last) if kind in ("Dense", "LayerNorm"))
    return PooledHead(modes, tuple(heads), heads[-1].outputs, weighted)
