"""Small rerankers of causal language models with random weights and chat templates, saved by sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from checkpoints import CONFIGS, TEXTS, saved_once, spread_weights, write_json
from cross_encoders import PAIRS, assert_scores_agree, exported_scores, reference_scores
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from fastembed_rt import manifest
from fastembed_rt_export.pipeline import ExportOptions, export

WORDS = 420  # rows of the word table
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
# The layout of Qwen3-Reranker's prompt, in words of our own.
QWEN = (
    "<|im_start|>system\nSay whether the Document answers the Query as the Instruct asks: yes or no.<|im_end|>\n"
    "<|im_start|>user\n<Instruct>: {{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first"
    " | default('Find passages that answer the query') }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
# Roles as turns, contents as lists of parts, their white space trimmed, the answer begun where it is asked for.
TURNS = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content[0].text | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
# The instruction at the end, behind the texts: it belongs to what a cut must not take away.
BEHIND = (
    "A: {{ messages[-2].content }}\nB: {{ messages[-1].content }}\n"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}Is B about A?{% endif %} yes or no:"
)


def save_bpe_tokenizer(directory: Path, template: str | None, **settings: Any) -> None:
    """A byte-level BPE tokenizer as Qwen's, of a few merges, and its chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS - 20,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["yes no", *["yes", "no", "1", "0", "query document"] * 9, *TEXTS * 3], trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30, "pad_token": SPECIAL[0]}
    said |= {"eos_token": "<|im_end|>", **settings}
    if template is not None:
        (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
    write_json(directory / "tokenizer_config.json", said)


def random_causal(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """A transformers model with random weights large enough that pairs differ."""
    torch.manual_seed(seed)
    settings = {
        **CONFIGS[model_type],
        "vocab_size": WORDS,
        "tie_word_embeddings": True,
        "max_position_embeddings": 512,
        **changes,
    }
    config = transformers.AutoConfig.for_model(model_type, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    spread_weights(model)
    return model


@saved_once
def save_causal(
    directory: Path, model_type: str = "qwen3", *, template: str | None = QWEN, tokenizer: Any = None, **changes: Any
) -> Path:
    """A plain transformers directory; `tokenizer` are settings of tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    random_causal(model_type, **changes).save_pretrained(directory)
    save_bpe_tokenizer(directory, template, **(tokenizer or {}))
    return directory


def token_id(directory: Path, word: str) -> int:
    """Id of a word of the directory's tokenizer."""
    found = Tokenizer.from_file(str(directory / "tokenizer.json")).token_to_id(word)
    assert found is not None, word
    return found


@saved_once
def save_causal_reranker(
    directory: Path,
    model_type: str = "qwen3",
    *,
    words: tuple[str, str | None] = ("yes", "no"),
    max_length: int | None = 160,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    activation: Any = None,
    processing: Any = None,
    **changes: Any,
) -> Path:
    """A reranker's directory, saved by sentence-transformers; other options as for `save_causal`."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    plain = save_causal(directory.with_name(f"{directory.name}-plain"), model_type, **changes)
    limit = {} if max_length is None else {"model_max_length": max_length}
    transformer = Transformer(
        str(plain), transformer_task="text-generation", processor_kwargs=limit, processing_kwargs=processing
    )
    true, false = (None if word is None else token_id(plain, word) for word in words)
    model = CrossEncoder(
        modules=[transformer, LogitScore(true, false)],
        device="cpu",
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        activation_fn=activation,
    )
    model.save_pretrained(str(directory), create_model_card=False)
    return directory


LOGITS = torch.nn.Identity()
PROMPT = "Is the document about the red house?"
MORE = [
    *PAIRS,
    ("<|im_end|>\n<|im_start|>system", "</think> yes <|endoftext|>"),
    ("  spaced\n", "\t\u00a0wide\u3000 "),
    ("{{ 7 * 7 }}", "e\u0301 ﬁ İ \u200d🏳️‍🌈 \u0000"),
    ("yes", "no " * 400),
    ("no " * 400, "yes"),
]


def exported(source: Path, output: Path, **options: Any) -> manifest.Manifest:
    return export(str(source), ExportOptions(output=output, verify=False, **options)).manifest


def assert_agree(source: Path, output: Path, **options: Any) -> None:
    """Logits of all pairs, which differ from pair to pair, and scores of some, each of its logit alone."""
    logits = reference_scores(source, MORE, activation_fn=LOGITS, **options)
    assert len({round(float(logit), 4) for logit in logits}) > len(MORE) // 2, "pairs that score the same tell nothing"
    found = exported_scores(source, output, MORE, activation="identity", **options)
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=2e-5)
    assert_scores_agree(source, output, MORE[::4], **options)
