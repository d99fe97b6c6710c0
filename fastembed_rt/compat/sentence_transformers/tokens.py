"""What tokenizers give in sentence-transformers: padded ids, and the tokenizer itself."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from ...errors import InvalidInputError
from ...models.base import WithMaxLength
from ...models.embedding import EmbeddingModel
from ...models.options import all_texts
from ...run.batching import pad
from ...text.inputs import check_iterable
from .. import tensors
from ..tensors import Array

# By model_type: families whose tokenizers give token types, as transformers' classes have it.
TYPED = frozenset("albert bert convbert deberta deberta-v2 electra fnet funnel lxmert mobilebert xlnet".split())
TOKENIZER_CONFIG = "tokenizer_config.json"


def features(model: WithMaxLength, inputs: Any, prompt: str) -> dict[str, Any]:
    """Padded ids of texts or pairs by transformers' names: (n, tokens) int64, tensors where torch is installed."""
    rows = list(check_iterable(inputs))
    if not rows:
        return {}
    pairs = isinstance(rows[0], (list, tuple))
    tokenizer = model._tokenizer
    made = tokenizer.pairs([tuple(row) for row in rows], prompt) if pairs else tokenizer(all_texts(rows), prompt)
    ids, mask = pad(made.ids, model.manifest.pad_token_id)
    found = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if model.manifest.source.model_type in TYPED:
        types = np.zeros_like(ids)
        if made.first_segments is not None:
            types[(np.arange(ids.shape[1]) >= made.first_segments[:, None]) & (mask != 0)] = 1
        found = {"input_ids": ids, "token_type_ids": types, "attention_mask": found["attention_mask"]}
    about = model.manifest.reranking
    more: dict[str, Any] = {"prompt_length": tokenizer.prompt_tokens(prompt)} if prompt and not tokenizer.chat else {}
    if about is not None and about.score_tokens:  # of a causal language model, whose last place is read
        found = {name: _padded_left(array, mask) for name, array in found.items()}
        more["logits_to_keep"] = 1
    result: dict[str, Any] = {name: tensors.like_theirs(array) for name, array in found.items()}
    return {**result, "modality": "message" if tokenizer.chat else "text", **more}


def _padded_left(array: Array, mask: Array) -> Array:
    """(n, tokens) padded on the right -> padded on the left."""
    order = np.argsort(mask.astype(bool), axis=1, kind="stable")
    moved: Array = np.take_along_axis(array, order, axis=1)
    return moved


def token_states(model: EmbeddingModel, texts: list[str], prompt: str) -> list[Array]:
    """Vectors (tokens, dim) of each text's tokens, before pooling.

    Raises:
        InvalidInputError: a model directory without a graph that gives them.
    """
    encode: Any = model.encode
    if "output" not in inspect.signature(encode).parameters:
        raise InvalidInputError("vectors of tokens are not possible: this model's graph gives finished vectors only")
    made = encode(texts, prompt=prompt, output="tokens") if texts else []
    return [np.asarray(getattr(entry, "vectors", entry), dtype=np.float32) for entry in made]


def tokenizer(model: WithMaxLength) -> Any:
    """transformers' tokenizer of a model directory where transformers is installed, else that of tokenizers."""
    raw = model._tokenizer.another()
    try:
        import transformers
    except ImportError:
        return raw
    if (model.path / TOKENIZER_CONFIG).is_file():
        made = transformers.AutoTokenizer.from_pretrained(str(model.path))
    else:
        pad_token = raw.id_to_token(model.manifest.pad_token_id)
        side = model.manifest.truncation_side
        made = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=pad_token, truncation_side=side)
    made.model_max_length = model.max_length
    return made
