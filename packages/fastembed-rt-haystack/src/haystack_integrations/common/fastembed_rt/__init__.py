"""What embedders and rankers share: a model that opens with `warm_up`, and a document's text."""

from .components import ModelComponent, text_of

__all__ = ["ModelComponent", "text_of"]
