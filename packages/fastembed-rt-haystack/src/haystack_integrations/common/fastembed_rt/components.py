"""A component's model, opened with `warm_up`; the component as a dict; a document's text."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

from haystack import Document, default_from_dict, default_to_dict

from fastembed_rt.integrations.opening import shared_model
from fastembed_rt.models.kept_options import KeptOptions, without_secrets


class ModelComponent:
    """A model's name and options; the model itself from `warm_up` on."""

    kind: ClassVar[Any]
    model: str
    model_kwargs = KeptOptions()
    _model: Any = None

    def warm_up(self) -> None:
        """Open the model, once in a process for all components with the same options."""
        if self._model is None:
            self._model = shared_model(self.kind, self.model, self.model_kwargs)

    async def warm_up_async(self) -> None:
        """`warm_up` for asyncio: what is not open yet opens in a thread, and the event loop stays free."""
        if self._model is None:
            await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Let go of the model, which closes with the last component that has it."""
        self._model = None

    def to_dict(self) -> dict[str, Any]:
        """The component as Haystack serializes it: its class and the arguments it was made with, but no hub token."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        arguments = {name: getattr(self, name) for name in names}
        return default_to_dict(self, **arguments | {"model_kwargs": without_secrets(self.model_kwargs)})

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Any:
        """A component from what `to_dict` gave."""
        return default_from_dict(cls, data)

    def _get_telemetry_data(self) -> dict[str, Any]:
        """What Haystack's telemetry is told: nothing, since names of models are paths."""
        return {}


def check_documents(documents: Any, asked: str) -> list[Document]:
    """The documents; raises TypeError, naming the component, for something that is no list of Document."""
    if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
        raise TypeError(f"{asked} expects a list of Document")
    return documents


def text_of(document: Document, meta_fields: Sequence[str], separator: str) -> str:
    """The fields of `meta` that are there, and the content behind them."""
    fields = (document.meta.get(name) for name in meta_fields)
    return separator.join([*(str(value) for value in fields if value is not None), document.content or ""])
