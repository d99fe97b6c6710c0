"""Code of checkpoints' own for model types that transformers knows too: what is known of what its classes compute.

Of a class without a row nothing is known, and transformers' may compute something else. A class of which no setting of
transformers' makes the same is an architecture of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .blocks import Config

UNKNOWN = "and nothing is known of what it computes; take auto_map out of config.json if transformers' class is meant"


@dataclass(frozen=True)
class Known:
    """A class that computes what transformers' does where config.json says so."""

    same: Callable[[Config], bool]
    advice: str  # where it does not say so


def _says_what_is_seen(config: Config) -> bool:
    return isinstance(config.get("is_causal"), bool)


def _sees_all(config: Config) -> bool:
    return config.get("is_causal") is False and config.get("sliding_window", 0) is None  # absent: transformers has some


# By model_type and class, as auto_map has it without its repository.
KNOWN = {
    ("qwen2", "modeling_qwen.Qwen2Model"): Known(
        _says_what_is_seen,
        "versions of which show a token all others or only those before it, and config.json does not say what the "
        'model was trained with: write "is_causal": false into it, as gte-Qwen2-1.5B-instruct and '
        "inf-retriever-v1-1.5b have it, or true",
    ),
    ("mistral", "modeling_gritlm7b.MistralModel"): Known(
        _sees_all,
        'whose vectors GritLM makes with tokens that see all others: write "is_causal": false and "sliding_window": '
        "null into config.json, and pool as GritLM does, the mean of all tokens but the prompt's, normalized",
    ),
}


def unlike(config: Config, named: str) -> str | None:
    """None where the class that auto_map names computes what transformers' does, else what is to be done."""
    known = KNOWN.get((str(config["model_type"]), named.rpartition("--")[2]))
    if known is None:
        return UNKNOWN
    return None if known.same(config) else known.advice
