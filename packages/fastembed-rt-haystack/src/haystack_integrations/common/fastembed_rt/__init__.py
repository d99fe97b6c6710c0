"""What embedders and rankers share: a model that opens with `warm_up`, and a document's text."""

from fastembed_rt.integrations.opening import name_of

from .components import ModelComponent, check_documents, text_of

__all__ = ["ModelComponent", "check_documents", "name_of", "text_of"]
