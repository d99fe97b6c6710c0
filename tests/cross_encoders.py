"""Small cross-encoders with random weights, saved as users' are, and what sentence-transformers makes of pairs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from checkpoints import CONFIGS, TEXTS, change_json, save_tokenizer, saved_once, spread_weights
from tokenizers import Tokenizer, processors

Pair = tuple[str, str]
PAIRS: list[Pair] = [
    ("", ""),
    ("a", ""),
    ("", "The Cat sleeps."),
    ("a dog runs", "the house is red"),
    ("the house is red", "a dog runs"),
    ("which river ?", "ÉTÉ à la rivière, 2 cats (red) - 東京 🙂"),
    ("a dog runs quickly under the old tree!", "new city light: 1 2 3 4 5 6 7 8 9 0 " * 9),
    ("new city light: 1 2 3 4 5 6 7 8 9 0 " * 9, "a dog runs quickly under the old tree!"),
    (TEXTS[-1], TEXTS[-1]),
]
PROMPTS = {"query": "query: ", "long": "the new red city light "}
TYPED = ("bert", "electra", "albert")


def random_classifier(model_type: str, labels: int, seed: int = 0, **changes: Any) -> Any:
    """A transformers model with random weights large enough that pairs differ."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(model_type, num_labels=labels, **{**CONFIGS[model_type], **changes})
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval().float()
    spread_weights(model)
    return model


@saved_once
def save_classifier(
    directory: Path,
    model_type: str = "bert",
    *,
    labels: int = 1,
    seed: int = 0,
    types: bool | None = None,
    **changes: Any,
) -> Path:
    """A plain transformers directory; `types`: whether its tokenizer gives token types (None: as the family does)."""
    directory.mkdir(parents=True, exist_ok=True)
    random_classifier(model_type, labels, seed, **changes).save_pretrained(directory)
    save_tokenizer(directory, model_type)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    bert = "[CLS]" in tokenizer.get_vocab()
    first, last = ("[CLS]", "[SEP]") if bert else ("<s>", "</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1" if bert else f"{first} $A {last} {last} $B {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    wanted = ["token_type_ids"] if (model_type in TYPED if types is None else types) else []
    change_json(directory / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask", *wanted])
    return directory


@saved_once
def save_cross_encoder(
    directory: Path,
    model_type: str = "bert",
    *,
    max_length: int | None = 40,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    activation: Any = None,
    **changes: Any,
) -> Path:
    """A cross-encoder's directory, saved by sentence-transformers; other options as for `save_classifier`."""
    from sentence_transformers import CrossEncoder

    plain = save_classifier(directory.with_name(f"{directory.name}-plain"), model_type, **changes)
    model = CrossEncoder(
        str(plain),
        device="cpu",
        max_length=max_length,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        activation_fn=activation,
    )
    model.save_pretrained(str(directory), create_model_card=False)
    return directory


def cross_encoder(directory: Path) -> Any:
    """The checkpoint in sentence-transformers."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(directory), device="cpu", local_files_only=True)


def reference_scores(directory: Path, pairs: list[Pair] = PAIRS, **options: Any) -> npt.NDArray[np.float32]:
    """What sentence-transformers makes of the pairs, each alone, as no other text can then be at fault."""
    scores: npt.NDArray[np.float32] = _opened(directory).predict(
        [list(pair) for pair in pairs], batch_size=1, show_progress_bar=False, **options
    )
    return scores


opened: dict[str, Any] = {}


def _opened(directory: Path) -> Any:
    """`cross_encoder`, once for the last few directories that hold the same."""
    held = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        held.update(f"{file.relative_to(directory)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    key = held.hexdigest()
    if key not in opened:
        for oldest in list(opened)[:-7]:
            del opened[oldest]
        opened[key] = cross_encoder(directory)
    return opened[key]


def exported_scores(
    directory: Path, output: Path, pairs: list[Pair] = PAIRS, load: dict[str, Any] | None = None, **options: Any
) -> npt.NDArray[np.float32]:
    """What the export of a checkpoint makes of the pairs; `load` are options of Reranker, the others of predict."""
    from fastembed_rt import Reranker
    from fastembed_rt_export.pipeline import ExportOptions, export

    if not output.exists():
        export(str(directory), ExportOptions(output=output, verify=False))
    with Reranker(output, **(load or {})) as model:
        scores: npt.NDArray[np.float32] = np.asarray(model.predict(pairs, **options))
    return scores


def assert_scores_agree(directory: Path, output: Path, pairs: list[Pair] = PAIRS, **options: Any) -> None:
    """The export's scores are those of sentence-transformers."""
    wanted = reference_scores(directory, pairs, **options)
    np.testing.assert_allclose(exported_scores(directory, output, pairs, **options), wanted, rtol=1e-5, atol=1e-5)
