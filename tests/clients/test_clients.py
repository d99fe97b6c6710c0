"""Existing clients against `fastembed-rt serve`, each in its own environment. `make clients` runs this.

FASTEMBED_RT_CLIENTS names the folder of environments; with FASTEMBED_RT_REAL, a folder that has minilm, that checkpoint
is served too; FASTEMBED_RT_CLIENTS_TABLE a file that gets a line for each client.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from checkpoints import save_sentence_transformers
from cross_encoders import save_cross_encoder
from exports import quick
from sparse_encoders import save_splade

from clients.checks import Expected
from clients.clients import CLIENTS
from clients.running import Client, check
from clients.served import serving
from fastembed_rt import EmbeddingModel, Reranker, SparseModel

REAL = Path(os.environ.get("FASTEMBED_RT_REAL", "."))
ENCODERS = ["tiny", *(["minilm"] if (REAL / "minilm" / "config.json").is_file() else [])]
TEXTS = ["the cat sleeps.", "a dog runs quickly under the old tree!", "new city light: 1 2 3", "über Bäume — 猫 🐈"]
QUERY, KEY, MANY, LARGE = "which dog runs ?", "a-key-of-the-tests", 64, 100_000
TWO_TOKENS = 200  # so many times two are more than any of the models reads
PROMPTS = {"query": "query : ", "document": "passage : "}

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif("FASTEMBED_RT_CLIENTS" not in os.environ, reason="FASTEMBED_RT_CLIENTS is unset: make clients"),
]


@dataclass(frozen=True)
class Case:
    given: dict[str, Any]  # to the scripts
    expected: Expected


@pytest.fixture(scope="module", params=ENCODERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    work = tmp_path_factory.mktemp("clients")
    checkpoint = REAL / "minilm"
    if request.param == "tiny":
        checkpoint = save_sentence_transformers(work / "tiny", prompts=PROMPTS, max_seq_length=40)
    models = {"encoder": work / "encoder", "ranker": work / "ranker", "splade": work / "splade"}
    quick(checkpoint, models["encoder"])
    quick(save_cross_encoder(work / "tiny-ranker"), models["ranker"])
    quick(save_splade(work / "tiny-splade"), models["splade"])
    with (
        EmbeddingModel(models["encoder"], threads=2) as encoder,
        Reranker(models["ranker"], threads=2) as ranker,
        SparseModel(models["splade"], threads=2) as splade,
    ):
        dimensions = encoder.dim // 3
        expected = Expected(
            texts=TEXTS,
            names=[*models],
            dimensions=dimensions,
            encoded=encoder.encode(TEXTS),
            queries=encoder.encode_query(TEXTS),
            documents=encoder.encode_document(TEXTS),
            unnormalized=without_normalization(checkpoint),
            shorter=encoder.encode(TEXTS, truncate_dim=dimensions),
            scores=ranker.predict([(QUERY, text) for text in TEXTS], activation="sigmoid"),
            ubinary=encoder.encode(TEXTS, precision="ubinary"),
            sparse=splade.encode(TEXTS),
            max_length=encoder.max_length,
        )
        dim = encoder.dim
    limits = ["--max-client-batch-size", str(MANY), "--payload-limit", str(LARGE)]
    keys = work / "keys"
    keys.write_text(f"# of the tests\n{KEY}\n", encoding="utf-8")
    with serving(models, work / "log", "--api-key-file", str(keys), *limits) as url:
        given = {
            "url": url,
            "key": KEY,
            "texts": TEXTS,
            "query": QUERY,
            "embedding": "encoder",
            "reranker": "ranker",
            "dim": dim,
            "dimensions": dimensions,
            "prompts": request.param == "tiny",
            "too_many": MANY + 1,
            "too_large": LARGE,
            "too_long": TWO_TOKENS,
        }
        yield Case(given, expected)


def without_normalization(checkpoint: Path) -> Any:
    """What sentence-transformers makes without its last module."""
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)
    assert type(reference[-1]).__name__ == "Normalize"
    del reference[-1]
    return reference.encode(TEXTS)


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_a_client_gets_the_models_vectors_and_scores(client: Client, case: Case) -> None:
    if (why := client.missing()) is not None:
        pytest.skip(why)
    told = client.run(case.given)
    check(client, told, case.expected)
    if path := os.environ.get("FASTEMBED_RT_CLIENTS_TABLE"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{client.name}\t{told['version']}\t{len(told['calls'])}\n")
