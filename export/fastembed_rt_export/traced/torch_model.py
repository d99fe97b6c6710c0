"""The encoder of a checkpoint on torch, as sentence-transformers has it, and what its config says of it.

Every family has names of its own for the same settings (XLM's emb_dim, GPT-2's n_positions) and leaves some to the
defaults of its class: transformers' config objects know both.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnsupportedCheckpointError, explained
from ..tensors import refuse_not_finite
from .token_types import TokenTypes

# What the limit of a text's tokens is called; some are another name's in the attribute_map of their class.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
UNNAMED = 2048  # tokens where a config names no limit: distances and recurrences go on for ever
LONG_ROTATIONS = ("longrope", "su")  # rope types that turn tokens otherwise where the longest text of a batch is long
TYPED = ("", "a", "a b c d", "a b c d e f g h i j k l m n o p q r s t u v w x y z")  # texts that show token types
# Where the encoder of an encoder-decoder is, which is what sentence-transformers loads of these.
ENCODERS = {
    "blenderbot": "models.blenderbot.modeling_blenderbot.BlenderbotEncoder",
    "blenderbot-small": "models.blenderbot_small.modeling_blenderbot_small.BlenderbotSmallEncoder",
    "longt5": "LongT5EncoderModel",
    "m2m_100": "models.m2m_100.modeling_m2m_100.M2M100Encoder",
    "marian": "models.marian.modeling_marian.MarianEncoder",
    "mt5": "MT5EncoderModel",
    "pegasus": "models.pegasus.modeling_pegasus.PegasusEncoder",
    "pegasus_x": "models.pegasus_x.modeling_pegasus_x.PegasusXEncoder",
    "prophetnet": "ProphetNetEncoder",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "t5": "T5EncoderModel",
    "umt5": "UMT5EncoderModel",
}


@dataclass(frozen=True)
class Facts:
    """What a checkpoint's config says under the names that most families use."""

    hidden_size: int
    positions: int  # tokens of the longest text
    notes: tuple[str, ...] = ()


def config_of(directory: Path) -> Any:
    """The checkpoint's config as transformers reads it, with the defaults of its class."""
    from transformers import AutoConfig

    with explained(f"transformers cannot read {directory / 'config.json'}"):
        return AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)


def facts(config: Any) -> Facts:
    """Width and length limit of a config, whatever its family calls them.

    Raises:
        UnsupportedCheckpointError: no width, or no positions left.
    """
    model_type = config.model_type
    hidden_size = _number(config, "hidden_size")
    if hidden_size is None:
        raise UnsupportedCheckpointError(
            f"config.json of model_type {model_type!r} has no hidden_size, under that or another name: no model that "
            "turns tokens into states of one width; its text encoder has a config of its own"
        )
    positions = _number(config, *POSITIONS)
    notes = []
    if positions is None:
        positions = UNNAMED
        notes.append(f"config.json names no limit of tokens; {UNNAMED} at most")
    if _after_pad(config):
        positions -= int(config.pad_token_id or 0) + 1
    if model_type == "big_bird" and config.attention_type == "block_sparse":
        whole = (5 + 2 * config.num_random_blocks) * config.block_size
        if whole < positions:
            notes.append(
                f"attention is block-sparse from {whole + 1} tokens on, and there changes with a text's neighbours; "
                f"{whole} at most, with full attention"
            )
            positions = whole
    short = _short_rotation(config)
    if short is not None and short < positions:
        notes.append(
            f"rotary positions are others from {short + 1} tokens on, for all texts of a batch with one so long "
            f"(rope_type 'longrope'); {short} at most, with those of short texts"
        )
        positions = short
    if positions < 1:
        raise UnsupportedCheckpointError(f"config.json of model_type {model_type!r} leaves no positions for a text")
    return Facts(hidden_size, positions, tuple(notes))


def _number(config: Any, *names: str) -> int | None:
    """The first of these settings that is a number; attribute_map of its class included."""
    values = (getattr(config, name, None) for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)


def _short_rotation(config: Any) -> int | None:
    """Tokens up to which rotary positions are those of short texts, where longer ones have others of their own."""
    found: list[int] = []
    for name in ("rope_parameters", "rope_scaling"):  # the latter before transformers 5
        given = getattr(config, name, None)
        given = given if isinstance(given, dict) else {}
        for entry in (given, *(part for part in given.values() if isinstance(part, dict))):
            if entry.get("rope_type", entry.get("type")) in LONG_ROTATIONS:
                # Phi-3 has it beside these settings, where it counts more.
                limit = _number(config, "original_max_position_embeddings")
                limit = limit or entry.get("original_max_position_embeddings")
                found += [limit] if isinstance(limit, int) else []
    return min(found, default=None)


def _after_pad(config: Any) -> bool:
    """Whether positions are counted from behind the pad id, as RoBERTa does: the rows up to it are no positions."""
    from transformers import MODEL_MAPPING

    if getattr(config, "position_embedding_type", "absolute") not in ("absolute", None):
        return False
    try:
        kinds = MODEL_MAPPING[type(config)]
    except (KeyError, ImportError):
        return False
    kind = kinds[0] if isinstance(kinds, tuple) else kinds  # Funnel has two
    module = importlib.import_module(kind.__module__)
    makers = [module, *(value for name, value in vars(module).items() if name.endswith("Embeddings"))]
    return any(hasattr(maker, "create_position_ids_from_input_ids") for maker in makers)


def load(directory: Path, config: Any) -> Any:
    """The encoder in float32 as sentence-transformers loads it.

    Raises:
        CheckpointError: tensors are missing, which transformers would fill with random numbers, or are not finite.
    """
    if config.model_type == "big_bird":
        config.attention_type = "original_full"  # what its blocks come to where they are not sparse yet
    place, _, name = ENCODERS.get(config.model_type, "AutoModel").rpartition(".")
    kind = getattr(importlib.import_module(f"transformers.{place}".rstrip(".")), name)
    options = {"local_files_only": True, "trust_remote_code": False}
    model, found = kind.from_pretrained(str(directory), config=config, output_loading_info=True, **options)
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:
        raise CheckpointError(
            f"the checkpoint lacks {len(missing)} tensors of {type(model).__name__} ({', '.join(missing[:3])}); "
            "transformers would fill them with random numbers"
        )
    model = model.float().eval()
    for name, weight in model.named_parameters():  # not buffers: masks of -inf are among them
        if "pooler" not in name:
            refuse_not_finite(weight.detach().numpy(), name, directory)
    return model


def given(directory: Path, model: Any) -> tuple[list[str], TokenTypes]:
    """What sentence-transformers gives the model, what the tokenizer makes and the model takes; and which token types.

    Raises:
        UnsupportedCheckpointError: types of the tokens of a single text that are not said by their places.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    made, taken = [tokenizer(text) for text in TYPED], inspect.signature(model.forward).parameters
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in made[0] and name in taken]
    if "token_type_ids" not in names:
        return names, TokenTypes()
    rows = [encoded["token_type_ids"] for encoded in made]
    types = TokenTypes.learned(rows)
    if types is None:
        raise UnsupportedCheckpointError(
            f"{type(tokenizer).__name__} gives the tokens of {TYPED[1]!r} the types {rows[1]}, those of {TYPED[2]!r} "
            f"{rows[2]}; a graph knows types by their places at a text's beginning and end alone"
        )
    return names, types
