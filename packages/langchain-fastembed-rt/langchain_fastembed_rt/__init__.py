"""fastembed-rt in LangChain: the classes of `fastembed_rt.integrations.langchain` under a name of LangChain's kind."""

from __future__ import annotations

from typing import Any

from fastembed_rt.integrations.langchain import FastEmbedRtCrossEncoder, FastEmbedRtEmbeddings, FastEmbedRtRerank

__all__ = ["FastEmbedRtCrossEncoder", "FastEmbedRtEmbeddings", "FastEmbedRtRerank", "FastEmbedRtSparseEmbeddings"]


def __getattr__(name: str) -> Any:
    if name == "FastEmbedRtSparseEmbeddings":  # only then: it needs langchain-qdrant
        from fastembed_rt.integrations.langchain_qdrant import FastEmbedRtSparseEmbeddings

        return FastEmbedRtSparseEmbeddings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
