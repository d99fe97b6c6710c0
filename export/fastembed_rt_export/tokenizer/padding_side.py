"""On which side transformers pads texts, where a text alone is padded: its tokens then have other places."""

from __future__ import annotations

from ..checkpoint.record import Checkpoint
from ..errors import UnsupportedCheckpointError
from ..files import read_json
from . import class_names

SETTINGS = "tokenizer_config.json"
KEY, LEFT = "padding_side", "left"
# Classes that pad on the left where nothing is said, without "Tokenizer" and "TokenizerFast" at their ends.
LEFT_CLASSES = frozenset("CodeLlama Cohere Gemma Llama Siglip2 XLNet".split())
# Models that number the places of a batch, padding included.
COUNTED = frozenset("albert bert deberta deberta-v2 distilbert electra ernie squeezebert".split())


def is_left(checkpoint: Checkpoint) -> bool:
    """Whether texts are padded on the left, as transformers 5.24 decides it."""
    path, file = checkpoint.path / SETTINGS, checkpoint.path / "tokenizer.json"
    settings = read_json(path) if path.is_file() else {}
    saved = (read_json(file).get("padding") if file.is_file() else None) or {}
    said = {**settings, **checkpoint.tokenizer_settings}
    side = checkpoint.padding.side or said.get(KEY) or str(saved.get("direction", "")).lower()
    if side:
        return bool(side == LEFT)
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return class_names.chosen(settings, checkpoint.config, byte_level=class_names.BYTE_LEVEL in text) in LEFT_CLASSES


def refuse_shifted(checkpoint: Checkpoint) -> None:
    """Raise UnsupportedCheckpointError where padding shifts the positions of a text alone, or what is pooled of it."""
    if checkpoint.is_static or not checkpoint.padding.alone:
        return
    if not checkpoint.include_prompt:
        raise UnsupportedCheckpointError(
            f"{checkpoint.path}: texts alone are padded too, also the prompt whose tokens are counted to leave them "
            "out of the pooling; take the padding out of processing_kwargs, or let the pooling include the prompt, if "
            "vectors were made so"
        )
    if checkpoint.model_type not in COUNTED:
        return
    if checkpoint.config.get("position_biased_input", True) and is_left(checkpoint):
        refuse(checkpoint, "the positions of a text's tokens would follow from how much it is padded")


def refuse(checkpoint: Checkpoint, because: str) -> None:
    """Raise UnsupportedCheckpointError: padding on the left is not built here."""
    raise UnsupportedCheckpointError(
        f"{checkpoint.path}: texts alone are padded too, and on the left, which is not built: {because}; take the "
        f"padding out of processing_kwargs, or set {KEY} to right, if vectors were made so"
    )
