"""A pytest plugin: classes of sentence-transformers stand for ours while its own tests run, and outcomes are kept.

What a test gives the classes, a checkpoint's name, directory or torch modules, is exported first, as a user would.
FASTEMBED_RT_SUITE says which classes: "ours"; "numpy", which also has our functions for `util`; "theirs", which tells
tests that fail without the real checkpoints from those that fail with our classes.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import sentence_transformers

from fastembed_rt.compat import sentence_transformers as compat
from fastembed_rt.compat.sentence_transformers import util as our_util
from fastembed_rt.manifest import MANIFEST_FILE

SUITE = os.environ.get("FASTEMBED_RT_SUITE", "ours")
EXPORTS = Path(os.environ["FASTEMBED_RT_SUITE_EXPORTS"])


def exported(kind: Any, name: Any, modules: Any) -> str:
    """The model directory of a checkpoint in this process's cache of exports."""
    from huggingface_hub import snapshot_download

    from fastembed_rt_export.pipeline import ExportOptions, export

    if name is not None and Path(name, MANIFEST_FILE).is_file():
        return str(name)
    if modules is not None:
        name = tempfile.mkdtemp(prefix="modules-", dir=EXPORTS)
        kind(modules=modules, device="cpu").save_pretrained(name)
    checkpoint = Path(name)
    if not checkpoint.is_dir():
        whole = name if "/" in name else f"{kind.default_huggingface_organization}/{name}"
        checkpoint = Path(snapshot_download(whole, local_files_only=True))
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.suffix != ".md")
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(checkpoint)).encode() + file.read_bytes())
    output = EXPORTS / f"{kind.__name__}-{digest.hexdigest()[:16]}"
    if not output.is_dir():
        # Graphs of token states, where the export knows them: `output_value="token_embeddings"` needs one.
        wanted = kind.__name__ == "SentenceTransformer" and "tokens" in {field.name for field in fields(ExportOptions)}
        extra: dict[str, Any] = {"tokens": True} if wanted else {}
        export(str(checkpoint), ExportOptions(output=output, verify=False, **extra))
    return str(output)


def standing_for(ours: Any, theirs: Any) -> Any:
    """Our class, which exports what it is given."""

    class Exported(ours):  # type: ignore[misc]
        def __init__(self, model_name_or_path: Any = None, *positional: Any, modules: Any = None, **options: Any):
            place = exported(theirs, model_name_or_path, modules)
            super().__init__(place, *positional, **{k: v for k, v in options.items() if k != "cache_folder"})

    Exported.__name__ = Exported.__qualname__ = ours.__name__
    return Exported


def replace() -> None:
    packages = {
        "SentenceTransformer": "sentence_transformer",
        "CrossEncoder": "cross_encoder",
        "SparseEncoder": "sparse_encoder",
    }
    for name, package in packages.items():
        kind = standing_for(getattr(compat, name), getattr(sentence_transformers, name))
        setattr(sentence_transformers, name, kind)
        for module in (package, f"{package}.model"):
            place = importlib.import_module(f"sentence_transformers.{module}")
            if hasattr(place, name):
                setattr(place, name, kind)


def replace_functions() -> None:
    from sentence_transformers import util
    from sentence_transformers.util import quantization, retrieval, similarity, tensor

    for name, function in our_util.OURS.items():
        for module in (util, quantization, retrieval, similarity, tensor):
            if hasattr(module, name):
                setattr(module, name, function)


if SUITE != "theirs":
    replace()
if SUITE == "numpy":
    replace_functions()
