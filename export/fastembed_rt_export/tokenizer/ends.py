"""Special tokens around texts that tokenizer_config.json asks for: add_bos_token and add_eos_token.

Some classes of transformers 4 made the template around texts of these, whatever tokenizer.json had; transformers 5
takes the template of that file and passes them over. A model that pools its last token (e5-mistral-7b-instruct) gives
other vectors then, without a word. Here they count where they are said: transformers 5 leaves them out when it saves,
so that a checkpoint that says them was made with 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UnsupportedCheckpointError
from . import class_names

Settings = Mapping[str, Any]
KEYS = ("add_bos_token", "add_eos_token")
# The classes, and whether texts begin with bos where nothing is said.
BOS = {"Llama": True, "Gemma": True, "Cohere": True, "GPTNeoX": False}
# Code of checkpoints' own that reads add_eos_token and does nothing else: gte-Qwen1.5, gte-Qwen2, their descendants.
KNOWN_CODE = "tokenization_qwen.Qwen2TokenizerFast"


@dataclass(frozen=True)
class Asked:
    """Whether texts begin with the tokenizer's bos_token and end with its eos_token."""

    bos: bool
    eos: bool
    by_code: bool = False  # of the checkpoint's own, which knows no bos

    @property
    def arguments(self) -> dict[str, bool]:
        """The same as arguments of a tokenizer."""
        return dict(zip(KEYS[self.by_code :], (self.bos, self.eos)[self.by_code :], strict=True))


def asked(settings: Settings, config: Settings, *, converted: bool = False) -> Asked | None:
    """What tokenizer_config.json asks for and its class, or its own code, would honour; None where that is nothing.

    Args:
        settings: of tokenizer_config.json.
        config: of config.json.
        converted: there is no tokenizer.json, which transformers 5 would have saved; where nothing is said, it is what
            the class did before.
    """
    if class_names.own_code(settings) is not None:
        known = is_known(settings) and KEYS[1] in settings
        return Asked(False, bool(settings[KEYS[1]]), by_code=True) if known else None
    name = class_names.named(settings, config)
    if name not in BOS or not (converted or any(key in settings for key in KEYS)):
        return None
    bos, eos = (bool(settings.get(key, default)) for key, default in zip(KEYS, (BOS[name], False), strict=True))
    return Asked(bos, eos)


def is_known(settings: Settings) -> bool:
    """Whether the code that tokenizer_config.json names is known, in its own repository or in another."""
    code = class_names.own_code(settings)
    return code is not None and code.rpartition("--")[2] == KNOWN_CODE


def refuse_code(settings: Settings, where: object) -> None:
    """Raise UnsupportedCheckpointError where code that is not known makes the tokens."""
    code = class_names.own_code(settings)
    if code is not None and not is_known(settings):
        raise UnsupportedCheckpointError(
            f"{where} names code of the checkpoint's own for its tokenizer ({code}), which is not run and may make "
            "other tokens than tokenizer.json; --trust-remote-code compares with it; or take auto_map out of "
            "tokenizer_config.json, if tokenizer.json makes the model's tokens"
        )


def note(asked: Asked, tokens: Sequence[str]) -> str:
    """A sentence on special tokens around texts, `tokens`, that transformers 5 does not put there by itself."""
    names = ", ".join(map(repr, tokens))
    around = f"special tokens around texts are {names}" if tokens else "no special tokens are around texts"
    return (
        f"{around}, as tokenizer_config.json was read before transformers 5, which puts others there; "
        f"sentence-transformers gives the same vectors with processor_kwargs={asked.arguments}"
    )
