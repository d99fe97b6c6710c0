"""Late-interaction checkpoints as sentence-transformers and PyLate save them, compared with MultiVectorEncoder."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoints import TEXTS, save_transformers, saved_once, write_json
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer
from tolerances import REFERENCE, close

from fastembed_rt import LateInteractionModel
from fastembed_rt_export.pipeline import ExportOptions, export

FIXED = {"strategy": "fixed", "length": 12}


@saved_once
def save_multi_vector(
    directory: Path,
    model_type: str = "bert",
    *,
    skiplist: tuple[str, ...] = (".", "!", ","),
    skiplist_tasks: list[str] | None = None,
    prompts: dict[str, str] | None = None,
    similarity: str | None = None,
    changes: dict[str, Any] | None = None,
    **transformer: Any,
) -> Path:
    """A MultiVectorEncoder, saved by sentence-transformers."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    plain = save_transformers(directory.with_name(directory.name + "-plain"), model_type, **(changes or {}))
    torch.manual_seed(1)
    dense = {"bias": False, "activation_function": torch.nn.Identity(), "module_input_name": "token_embeddings"}
    modules = [
        Transformer(str(plain), **{"document_length": 40, **transformer}),
        Dense(24, 16, **dense),
        Dense(16, 8, **dense, use_residual=True),
        MultiVectorMask(skiplist_words=list(skiplist), skiplist_tasks=skiplist_tasks),
        Normalize(module_input_name="token_embeddings"),
    ]
    model = MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts, similarity_fn_name=similarity)
    model.save_pretrained(str(directory), create_model_card=False)
    return directory


def save_pylate(directory: Path, encoder: str = "bert", **config: Any) -> Path:
    """What PyLate's models.ColBERT writes: markers as added tokens, settings beside the prompts."""
    save_transformers(directory, encoder)
    add_markers(directory, "[Q] ", "[D] ")
    dense = directory / "1_Dense"
    activation = "torch.nn.modules.linear.Identity"
    sizes = {"in_features": 24, "out_features": 8, "bias": False}
    write_json(dense / "config.json", {**sizes, "activation_function": activation, "use_residual": False})
    projection = np.random.default_rng(0).normal(0, 0.3, (8, 24)).astype(np.float32)
    save_file({"linear.weight": projection}, dense / "model.safetensors")
    kinds = (("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense"))
    modules = [{"idx": k, "name": str(k), "path": path, "type": kind} for k, (path, kind) in enumerate(kinds)]
    write_json(directory / "modules.json", modules)
    write_json(directory / "sentence_bert_config.json", {"max_seq_length": 40, "do_lower_case": False})
    said: dict[str, Any] = {
        "model_type": "ColBERT",
        "prompts": {},
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "[Q] ",
        "document_prefix": "[D] ",
        "query_length": 14,
        "document_length": 36,
        "attend_to_expansion_tokens": False,
        "skiplist_words": list(string.punctuation),
        "do_query_expansion": True,
    }
    write_json(directory / "config_sentence_transformers.json", {**said, **config})
    return directory


def add_markers(directory: Path, *markers: str) -> None:
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken(marker, normalized=True) for marker in markers])
    tokenizer.save(str(directory / "tokenizer.json"))


def exported(checkpoint: Path, output: Path, **options: Any) -> Path:
    export(str(checkpoint), ExportOptions(output=output, verify=False, **options))
    return output


def reference(checkpoint: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(checkpoint), device="cpu", local_files_only=True)


def assert_same(found: list[Any], wanted: list[Any], tolerance: float = REFERENCE) -> None:
    assert [one.shape for one in found] == [tuple(one.shape) for one in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        close(ours, theirs, tolerance)


def assert_agrees(checkpoint: Path, output: Path, target: str = "cpu", **options: Any) -> None:
    """Queries, documents and scores are those of MultiVectorEncoder."""
    theirs = reference(checkpoint)
    with LateInteractionModel(exported(checkpoint, output, **options), target=target) as ours:
        queries, documents = ours.encode_query(TEXTS), ours.encode_document(TEXTS)
        wanted = theirs.encode_query(TEXTS), theirs.encode_document(TEXTS)
        assert_same(queries, wanted[0])
        assert_same(documents, wanted[1])
        scores = theirs.similarity(*wanted).numpy()
        np.testing.assert_allclose(ours.similarity(queries, documents), scores, rtol=1e-5, atol=1e-4)
