"""Whether a checkpoint's tokenizer gives its model token types, as transformers 5.24 decides it, and which of texts."""

from __future__ import annotations

from tokenizers import Tokenizer

from fastembed_rt.manifest import RERANKING

from ..checkpoint.record import Checkpoint
from ..errors import CheckpointError, UnsupportedCheckpointError, theirs
from ..files import read_json
from . import class_names

SETTINGS = "tokenizer_config.json"
# Classes that name token types among a model's inputs, without "Tokenizer" and "TokenizerFast" at their ends.
TYPED = frozenset(
    "Bert Canine ConvBert Deberta DebertaV2 Electra FNet LayoutLM LayoutLMv2 Lxmert MarkupLM MobileBert SqueezeBert "
    "Tapas".split()
)
# Models with several types where config.json does not say how many.
TYPED_MODELS = frozenset("albert bert convbert electra ernie mobilebert nomic_bert squeezebert".split())


def given(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's tokenizer gives token types to the model, and the model has more than one.

    Raises:
        CheckpointError: a number of types that is none.
    """
    count = checkpoint.config.get("type_vocab_size")
    if count is not None and type(count) is not int:
        raise CheckpointError(f"config.json has type_vocab_size {count!r}, expected a number of token types")
    several = checkpoint.model_type in TYPED_MODELS if count is None else count > 1
    return several and _made(checkpoint)


def _made(checkpoint: Checkpoint) -> bool:
    path, file = checkpoint.path / SETTINGS, checkpoint.path / "tokenizer.json"
    settings = read_json(path) if path.is_file() else {}
    inputs = {**settings, **checkpoint.tokenizer_settings}.get("model_input_names")
    if isinstance(inputs, list):
        return "token_type_ids" in inputs
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return class_names.chosen(settings, checkpoint.config, byte_level=class_names.BYTE_LEVEL in text) in TYPED


def refuse_others(checkpoint: Checkpoint, text: str) -> None:
    """Raise UnsupportedCheckpointError where tokens of a text alone have another type than 0, the only one built.

    Args:
        checkpoint: whose tokenizer it is. Traced models take the types that it makes; pairs have an input for them.
        text: tokenizer.json as it is exported.
    """
    if checkpoint.is_static or checkpoint.architecture.traced or checkpoint.task == RERANKING or not given(checkpoint):
        return
    try:
        types = Tokenizer.from_str(text).encode("a").type_ids
    except Exception as error:
        if not theirs(error):
            raise
        return  # a vocabulary that lacks its own unknown token: texts will say so
    if any(types):
        raise UnsupportedCheckpointError(
            f"{checkpoint.path}: the tokenizer gives the tokens of 'a' the types {types}, which the model takes; built "
            "are texts whose tokens are all of type 0; change tokenizer.json's post_processor, or leave token_type_ids "
            f"out of model_input_names in {SETTINGS}, if vectors were made so"
        )
