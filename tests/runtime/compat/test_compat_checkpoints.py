"""The classes of others open checkpoints by name, as there: exported once, with the reference's vectors."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from checkpoints import TEXTS, save_sentence_transformers
from cross_encoders import PAIRS, reference_scores, save_cross_encoder
from exports import contents
from fake_hub import FakeHub
from sparse_encoders import save_splade
from tolerances import close

from fastembed_rt.compat import fastembed
from fastembed_rt.compat import sentence_transformers as compat


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "kept"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("made")
    return {
        "dense": save_sentence_transformers(root / "dense"),
        "pairs": save_cross_encoder(root / "pairs"),
        "splade": save_splade(root / "splade"),
    }


def theirs(kind: str, place: Path) -> Any:
    return getattr(sentence_transformers, kind)(str(place), device="cpu", local_files_only=True)


def test_directories_of_checkpoints(made: dict[str, Path]) -> None:
    dense = compat.SentenceTransformer(str(made["dense"]), verify=False)
    close(dense.encode(TEXTS), theirs("SentenceTransformer", made["dense"]).encode(TEXTS))
    close(pickle.loads(pickle.dumps(dense)).encode(TEXTS), dense.encode(TEXTS))
    pairs = compat.CrossEncoder(str(made["pairs"]), verify=False)
    np.testing.assert_allclose(pairs.predict(PAIRS), reference_scores(made["pairs"], PAIRS), rtol=1e-5, atol=1e-5)
    sparse = compat.SparseEncoder(str(made["splade"]), verify=False)
    wanted = theirs("SparseEncoder", made["splade"]).encode(TEXTS, convert_to_sparse_tensor=False)
    close(sparse.encode(TEXTS, convert_to_sparse_tensor=False).numpy(), wanted.numpy())


def test_names_without_an_organization_are_found_where_the_library_has_its_own(
    hub: FakeHub, made: dict[str, Path]
) -> None:
    hub.add("sentence-transformers/tiny-v1", contents(made["dense"]))
    hub.add("cross-encoder/tiny-v1", contents(made["pairs"]))
    hub.add("tiny-bert", contents(made["dense"]))  # as the hub's oldest names
    wanted = theirs("SentenceTransformer", made["dense"]).encode(TEXTS)
    for name in ("tiny-v1", "sentence-transformers/tiny-v1", "tiny-bert"):
        close(compat.SentenceTransformer(name, verify=False).encode(TEXTS), wanted)
    assert compat.CrossEncoder("tiny-v1", verify=False).num_labels >= 1
    with pytest.raises(FileNotFoundError, match=r"no directory 'tiny-v2' here.*; as sentence-transformers/tiny-v2: "):
        compat.SentenceTransformer("tiny-v2", verify=False)


def test_their_constructors_arguments_reach_export_and_model(made: dict[str, Path]) -> None:
    model = compat.SentenceTransformer(
        str(made["dense"]), precision="int8", verify=False, truncate_dim=8, processor_kwargs={"model_max_length": 9}
    )
    assert (model.max_seq_length, model.encode("a dog").shape) == (9, (8,))
    wanted = theirs("SentenceTransformer", made["dense"])
    wanted.max_seq_length = 9
    whole = compat.SentenceTransformer(str(made["dense"]), precision="int8", verify=False, max_length=9)
    assert (np.sum(whole.encode(TEXTS) * wanted.encode(TEXTS), axis=1) > 0.98).all()


def test_fastembeds_classes(hub: FakeHub, made: dict[str, Path]) -> None:
    hub.add("acme/dense", contents(made["dense"]))
    hub.add("acme/pairs", contents(made["pairs"]))
    hub.add("acme/splade", contents(made["splade"]))
    dense = fastembed.TextEmbedding("acme/dense", verify=False)
    close(np.stack(list(dense.embed(TEXTS))), theirs("SentenceTransformer", made["dense"]).encode(TEXTS))
    ranked = fastembed.TextCrossEncoder("acme/pairs", verify=False).rerank("a dog", TEXTS)
    pairs = [("a dog", text) for text in TEXTS]
    wanted = reference_scores(made["pairs"], pairs, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(list(ranked), wanted, rtol=1e-5, atol=1e-5)
    sparse = next(iter(fastembed.SparseTextEmbedding("acme/splade", verify=False).embed(["a dog"])))
    wanted = theirs("SparseEncoder", made["splade"]).encode(["a dog"], convert_to_sparse_tensor=False).numpy()[0]
    close(sparse.values, wanted[sparse.indices])
    with pytest.raises(ValueError, match="not to be seen"):
        fastembed.TextEmbedding("acme/nothing")
