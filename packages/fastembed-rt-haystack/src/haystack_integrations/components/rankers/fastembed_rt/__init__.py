"""Rankers for Haystack: cross-encoders and late interaction, by fastembed-rt."""

from .rankers import FastEmbedRtLateInteractionRanker, FastEmbedRtRanker

__all__ = ["FastEmbedRtLateInteractionRanker", "FastEmbedRtRanker"]
