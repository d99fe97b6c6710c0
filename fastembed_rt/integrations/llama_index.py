"""LlamaIndex: dense and sparse embeddings, and a reranker of nodes. Needs llama-index-core alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from .. import EmbeddingModel, Reranker, SparseModel
from ..errors import InvalidInputError
from ..models.kept_options import ModelOptions
from ..models.reranker import Ranked
from .opening import KeepsOptions, check_fields, name_of, needs, open_model, single

with needs("llama-index-core", "llama-index"):
    import llama_index.core.instrumentation as instrument
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
    from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, PrivateAttr
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

__all__ = ["FastEmbedRtEmbedding", "FastEmbedRtRerank", "FastEmbedRtSparseEmbedding"]
LARGEST = 2048  # of BaseEmbedding.embed_batch_size: the model makes its own batches, and the more texts the better
RETRIEVAL_SCORE = "retrieval_score"  # as LlamaIndex's own rerankers call it
dispatcher = instrument.get_dispatcher(__name__)


class _Written(KeepsOptions, BaseModel):
    """Fields that say how the model was opened: what `to_dict` writes and `from_dict` opens again."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a hub token may be in it
    model_kwargs: ModelOptions = Field(
        default_factory=ModelOptions, description="Options of from_checkpoint, such as precision, threads, prompts."
    )

    def __init__(self, **fields: Any) -> None:
        known = type(self).model_fields.keys() | {"class_name"}  # which `to_dict` adds
        check_fields(type(self).__name__, fields.keys() - known)
        super().__init__(**fields)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        # As pydantic has it: LlamaIndex would make the object anew, and with it a second engine beside the first.
        BaseModel.__setstate__(self, state)


class _Embedding(_Written):
    """The six ways in which LlamaIndex asks for vectors, of a model of `kind`; a subclass gives them its own form."""

    kind: ClassVar[type[EmbeddingModel | SparseModel]]
    embed_batch_size: int = Field(default=LARGEST, gt=0, le=LARGEST, description="Texts of one call of the model.")
    encode_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of each call's encode, such as normalize, truncate_dim, max_active_dims.",
    )
    _model: Any = PrivateAttr()

    def __init__(self, model_name: str | os.PathLike[str], **fields: Any) -> None:
        """Open the model.

        Args:
            model_name: a model directory, a checkpoint or a hub repository.
            **fields: model_kwargs, options of the class's `from_checkpoint`; encode_kwargs, of each call;
                embed_batch_size, callback_manager, num_workers, embeddings_cache as LlamaIndex has them.

        Raises:
            ModelNotFoundError, ModelFormatError and others: as `from_checkpoint`.
        """
        name = name_of(model_name)
        super().__init__(model_name=name, **fields)
        self._model = open_model(self.kind, name, self.model_kwargs)

    @staticmethod
    def _as_theirs(vector: Any) -> Any:
        """A vector in LlamaIndex's form."""
        raise NotImplementedError

    def _get_query_embedding(self, query: str) -> Any:
        return self._as_theirs(self._model.encode_query(single(query), **self.encode_kwargs))

    def _get_text_embedding(self, text: str) -> Any:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Any]:
        return [self._as_theirs(vector) for vector in self._model.encode_document(texts, **self.encode_kwargs)]

    async def _aget_query_embedding(self, query: str) -> Any:
        return self._as_theirs(await self._model.aencode_query(single(query), **self.encode_kwargs))

    async def _aget_text_embedding(self, text: str) -> Any:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Any]:
        return [self._as_theirs(vector) for vector in await self._model.aencode_document(texts, **self.encode_kwargs)]


class FastEmbedRtEmbedding(_Embedding, BaseEmbedding):
    """Vectors of nodes with the model's document prompt, and of questions with its query prompt.

    Up to 2,048 texts are one call of the model (`embed_batch_size`), which makes its own batches. `to_dict` writes the
    model's name and options, without a hub token; `from_dict` opens it again. Pickles and copies share the engine.
    """

    kind = EmbeddingModel

    @classmethod
    def class_name(cls) -> str:
        """What `to_dict` calls it."""
        return "FastEmbedRtEmbedding"

    @property
    def client(self) -> EmbeddingModel:
        """The model itself."""
        model: EmbeddingModel = self._model
        return model

    @staticmethod
    def _as_theirs(vector: Any) -> list[float]:
        numbers: list[float] = vector.tolist()
        return numbers


class FastEmbedRtSparseEmbedding(_Embedding, BaseSparseEmbedding):
    """Weights of words by token id, of nodes and questions with their prompts."""

    kind = SparseModel

    @classmethod
    def class_name(cls) -> str:
        """What `model_dump` calls it."""
        return "FastEmbedRtSparseEmbedding"

    @property
    def client(self) -> SparseModel:
        """The model itself."""
        model: SparseModel = self._model
        return model

    @staticmethod
    def _as_theirs(vector: Any) -> dict[int, float]:
        weights: dict[int, float] = vector.as_dict()
        return weights


class FastEmbedRtRerank(_Written, BaseNodePostprocessor):
    """Nodes by falling score of a reranker, which reads each node's text with the metadata meant for embedding.

    What comes back are new NodeWithScore objects over the same nodes; the list given stays as it is.
    """

    model: str = Field(description="A model directory, a checkpoint or a hub repository of a reranker.")
    top_n: int = Field(default=2, ge=1, description="The best so many.")
    keep_retrieval_score: bool = Field(
        default=False, description="Keep the score before this in the node's metadata, as retrieval_score."
    )
    rank_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Options of each call's rank, such as prompt_name, activation."
    )
    _model: Reranker = PrivateAttr()

    def __init__(self, model: str | os.PathLike[str], top_n: int = 2, **fields: Any) -> None:
        """Open the model, a Reranker; as for FastEmbedRtEmbedding."""
        super().__init__(model=name_of(model), top_n=top_n, **fields)
        self._model = open_model(Reranker, self.model, self.model_kwargs)

    @classmethod
    def class_name(cls) -> str:
        """What `to_dict` calls it."""
        return "FastEmbedRtRerank"

    @property
    def client(self) -> Reranker:
        """The model itself."""
        return self._model

    @dispatcher.span
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._begin(nodes, query_bundle)
        if not nodes:
            return self._end([])
        with self._event(nodes, query) as event:
            made = self._ordered(nodes, self._model.rank(query, _contents(nodes), **self._options))
            event.on_end(payload={EventPayload.NODES: made})
        return self._end(made)

    @dispatcher.span
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._begin(nodes, query_bundle)
        if not nodes:
            return self._end([])
        with self._event(nodes, query) as event:
            made = self._ordered(nodes, await self._model.arank(query, _contents(nodes), **self._options))
            event.on_end(payload={EventPayload.NODES: made})
        return self._end(made)

    @property
    def _options(self) -> dict[str, Any]:
        return {"top_k": self.top_n, **self.rank_kwargs}

    def _begin(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> str:
        started = ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=self.model)
        dispatcher.event(started)
        if query_bundle is None:
            raise InvalidInputError("a reranker needs the query: pass query_str= or query_bundle=")
        query: str = query_bundle.query_str
        return query

    def _event(self, nodes: list[NodeWithScore], query: str) -> Any:
        payload = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
        }
        return self.callback_manager.event(CBEventType.RERANKING, payload=payload)

    def _ordered(self, nodes: list[NodeWithScore], ranked: Sequence[Ranked]) -> list[NodeWithScore]:
        made = []
        for entry in ranked:
            found = nodes[entry.index]
            node = _with_score(found) if self.keep_retrieval_score else found.node
            made.append(NodeWithScore(node=node, score=entry.score))
        return made

    def _end(self, nodes: list[NodeWithScore]) -> list[NodeWithScore]:
        dispatcher.event(ReRankEndEvent(nodes=nodes))
        return nodes


def _contents(nodes: list[NodeWithScore]) -> list[str]:
    return [entry.node.get_content(metadata_mode=MetadataMode.EMBED) for entry in nodes]


def _with_score(found: NodeWithScore) -> Any:
    """A copy of the node whose metadata has the score, not as a part of the text that models read."""
    hidden = [*found.node.excluded_embed_metadata_keys, RETRIEVAL_SCORE]
    metadata = {**found.node.metadata, RETRIEVAL_SCORE: found.score}
    return found.node.model_copy(update={"metadata": metadata, "excluded_embed_metadata_keys": hidden})
