"""What the embedders share: a model that opens with `warm_up`, and the texts that documents are embedded as."""

from __future__ import annotations

from typing import Any, ClassVar

from haystack import Document, default_from_dict, default_to_dict

from fastembed_rt.integrations.opening import shared_model


class Embedder:
    """A model's name and options; the model itself from `warm_up` on."""

    kind: ClassVar[Any]

    def __init__(
        self,
        model: str,
        prefix: str = "",
        suffix: str = "",
        model_kwargs: dict[str, Any] | None = None,
        encode_kwargs: dict[str, Any] | None = None,
        progress_bar: bool = False,
    ) -> None:
        """Say which model; it is opened by `warm_up`, or with the first text.

        Args:
            model: a model directory, a checkpoint or a hub repository.
            prefix: put before each text, behind the model's own prompt.
            suffix: put behind each text.
            model_kwargs: options of the class's `from_checkpoint`, such as precision, threads, prompts.
            encode_kwargs: options of its `encode`, such as prompt_name, prompt, and of vectors normalize,
                truncate_dim, of words max_active_dims.
            progress_bar: on stderr.
        """
        self.model = model
        self.prefix = prefix
        self.suffix = suffix
        self.model_kwargs = model_kwargs or {}
        self.encode_kwargs = encode_kwargs or {}
        self.progress_bar = progress_bar
        self._model: Any = None

    def warm_up(self) -> None:
        """Open the model, once in a process for all components with the same options."""
        if self._model is None:
            self._model = shared_model(self.kind, self.model, self.model_kwargs)

    def close(self) -> None:
        """Let go of the model, which closes with the last component that has it."""
        self._model = None

    def _init_parameters(self) -> dict[str, Any]:
        names = ("model", "prefix", "suffix", "model_kwargs", "encode_kwargs", "progress_bar")
        return {name: getattr(self, name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack serializes it: its class and the arguments it was made with."""
        return default_to_dict(self, **self._init_parameters())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """A component from what `to_dict` gave."""
        return default_from_dict(cls, data)

    def _get_telemetry_data(self) -> dict[str, Any]:
        """What Haystack's telemetry is told: nothing, since names of models are paths."""
        return {}

    def _text(self, text: Any) -> str:
        if not isinstance(text, str):
            raise TypeError(
                f"{type(self).__name__} expects a str, not {type(text).__name__}; documents have an embedder"
            )
        return f"{self.prefix}{text}{self.suffix}"


class OfDocuments(Embedder):
    """An embedder of documents."""

    def __init__(
        self,
        model: str,
        prefix: str = "",
        suffix: str = "",
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        model_kwargs: dict[str, Any] | None = None,
        encode_kwargs: dict[str, Any] | None = None,
        progress_bar: bool = True,
    ) -> None:
        """Say which model; it is opened by `warm_up`, or with the first documents.

        Args:
            model: a model directory, a checkpoint or a hub repository.
            prefix: put before each text, behind the model's own prompt.
            suffix: put behind each text.
            meta_fields_to_embed: fields of `meta` that stand before a document's content.
            embedding_separator: between those fields and the content.
            model_kwargs: options of the class's `from_checkpoint`, such as precision, threads, prompts.
            encode_kwargs: options of its `encode`; see the embedder of texts.
            progress_bar: on stderr.
        """
        # Not super(): the decorator `component` makes another class of what derives from this one.
        Embedder.__init__(self, model, prefix, suffix, model_kwargs, encode_kwargs, progress_bar)
        self.meta_fields_to_embed = meta_fields_to_embed or []
        self.embedding_separator = embedding_separator

    def _init_parameters(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("meta_fields_to_embed", "embedding_separator")}
        return {**super()._init_parameters(), **own}

    def _texts(self, documents: Any) -> list[str]:
        if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
            raise TypeError(f"{type(self).__name__} expects a list of Document; a str has a text embedder")
        return [self._text(self.embedding_separator.join(self._parts(document))) for document in documents]

    def _parts(self, document: Document) -> list[str]:
        fields = (document.meta.get(name) for name in self.meta_fields_to_embed)
        return [*(str(value) for value in fields if value is not None), document.content or ""]
