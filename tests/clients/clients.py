"""The clients, each with its environment and script, and what each call of the script must give.

`make clients` makes the environments. A script takes the case from stdin and writes what its calls gave to stdout; see
scripts/calls.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.checks import (
    IDS,
    KEYS,
    MANY,
    UNKNOWN,
    Check,
    Expected,
    Raises,
    cosines,
    equals,
    model_names,
    order,
    ranked,
    second_text,
    sparse,
    texts_in_order,
    ubinary,
    unnormalized,
    vectors,
)

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).with_name("scripts")
ENVIRONMENTS = Path(os.environ.get("FASTEMBED_RT_CLIENTS", ROOT / "build" / "clients"))


@dataclass(frozen=True)
class Client:
    """A client as one test runs it."""

    name: str
    environment: str  # folder in ENVIRONMENTS
    script: str
    calls: Mapping[str, Check | Raises]

    def missing(self) -> str | None:
        """Why it cannot be run here, if so."""
        place = ENVIRONMENTS / self.environment
        if (place / ("node_modules" if self.environment == "node" else "bin/python")).exists():
            return None
        return f"{place} is not there; make clients makes it"

    def run(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """Its version and what its calls gave."""
        place = ENVIRONMENTS / self.environment
        script = SCRIPTS / self.script
        if self.environment == "node":  # which looks for modules where the script lies
            for name in ("calls.mjs", self.script):
                (place / name).write_text((SCRIPTS / name).read_text(encoding="utf-8"), encoding="utf-8")
            command = ["node", str(place / self.script)]
        else:
            command = [str(place / "bin" / "python"), str(script)]
        offline = {
            "ANONYMIZED_TELEMETRY": "false",
            "HAYSTACK_TELEMETRY_ENABLED": "false",
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
            "NO_PROXY": "127.0.0.1",
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        done = subprocess.run(
            command,
            input=json.dumps(case),
            env={**kept, **offline},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {done.stderr[-3000:]}"
        told: dict[str, Any] = json.loads(done.stdout[done.stdout.index('{"version"') :])
        return told


def check(client: Client, told: Mapping[str, Any], expected: Expected) -> None:
    """Every call that the table names, and no other; all that fail are told."""
    assert set(told["calls"]) == set(client.calls)
    failed = []
    for name, wanted in client.calls.items():
        found = told["calls"][name]
        try:
            if isinstance(wanted, Raises):
                wanted.check(found)
            else:
                assert "gave" in found, found
                wanted(found["gave"], expected)
        except AssertionError as error:
            failed.append(f"{name}: {error}")
    if failed:
        pytest.fail(f"{client.name} {told['version']}\n" + "\n".join(failed))


FIRST = vectors(count=1)
COHERE: Mapping[str, Check | Raises] = {
    "documents": vectors("documents"),
    "query": vectors("queries"),
    "without_a_prompt": vectors(),
    "shorter": vectors("shorter"),
    "binary": ubinary,
    **dict.fromkeys(("rerank", "asynchronous"), ranked()),
    "rerank_best": ranked(2),
    "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
    "too_many": Raises("UnprocessableEntityError", 422, MANY),
    "wrong_key": Raises("UnauthorizedError", 401, KEYS),
}
CLIENTS = (
    Client(
        "openai",
        "openai",
        "openai_python.py",
        {
            **dict.fromkeys(("vectors", "numbers", "asynchronous"), vectors()),
            "one": FIRST,
            "shorter": vectors("shorter"),
            "query": vectors("queries"),
            "models": model_names,
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "too_many": Raises("UnprocessableEntityError", 422, MANY),
            "too_large": Raises("APIStatusError", 413, "payload_limit"),
            "token_ids": Raises("UnprocessableEntityError", 422, IDS),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "litellm",
        "openai",
        "litellm_providers.py",
        {
            **dict.fromkeys(
                ("openai", "openai_float", "asynchronous", "hosted_vllm", "jina_ai", "infinity", "huggingface"),
                vectors(),
            ),
            "openai_shorter": vectors("shorter"),
            "cohere": vectors("queries"),
            **dict.fromkeys(
                ("hosted_vllm_rerank", "jina_ai_rerank", "infinity_rerank", "huggingface_rerank"), ranked()
            ),
            "cohere_rerank": ranked(2),
            **dict.fromkeys(("infinity_rerank_documents", "cohere_rerank_documents"), texts_in_order),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "too_many": Raises("APIError", 422, MANY),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "DSPy",
        "openai",
        "dspy_embedder.py",
        {
            "vectors": vectors(),
            "retrieved": second_text,
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "langchain-openai",
        "langchain",
        "langchain_openai_embeddings.py",
        {
            **dict.fromkeys(("vectors", "asynchronous"), vectors()),
            "one": FIRST,
            "shorter": vectors("shorter"),
            "token_ids": Raises("UnprocessableEntityError", 422, IDS),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "too_many": Raises("UnprocessableEntityError", 422, MANY),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "langchain-cohere",
        "langchain",
        "langchain_cohere_clients.py",
        {
            "documents": vectors("documents"),
            "query": vectors("queries"),
            "rerank": ranked(),
            "compressed": ranked(2),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("UnauthorizedError", 401, KEYS),
        },
    ),
    Client("cohere", "cohere", "cohere_python.py", COHERE),
    Client("cohere 5", "langchain", "cohere_python.py", COHERE),
    Client(
        "huggingface_hub",
        "haystack",
        "huggingface_hub_client.py",
        {
            **dict.fromkeys(("vectors", "cut_and_normalized", "of_a_model"), vectors()),
            "one": FIRST,
            "prompt": vectors("queries"),
            "similarity": cosines,
            "too_many": Raises("HfHubHTTPError", 422, MANY),
            "unknown_prompt": Raises("HfHubHTTPError", 422, "no prompt of this name"),
            "wrong_key": Raises("HfHubHTTPError", 401),
        },
    ),
    Client(
        "Haystack",
        "haystack",
        "haystack_components.py",
        {
            **dict.fromkeys(("openai_documents", "tei_documents"), vectors()),
            **dict.fromkeys(("openai_text", "tei_text"), FIRST),
            "tei_documents_as_by_default": unnormalized,
            "sparse_documents": sparse(),
            "sparse_text": sparse(1),
            "cohere_text": vectors("queries", 1),
            **dict.fromkeys(("ranker", "cohere_ranker"), ranked(2)),
            "ranker_raw": order,
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("RuntimeError", None, KEYS),
        },
    ),
    Client(
        "llama-index-embeddings-openai",
        "llama-index",
        "llama_index_openai.py",
        {
            **dict.fromkeys(("vectors", "asynchronous"), vectors()),
            "many": vectors(times=5),
            "one": FIRST,
            "shorter": vectors("shorter"),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "llama-index-embeddings-text-embeddings-inference",
        "llama-index",
        "llama_index_tei.py",
        {
            **dict.fromkeys(("vectors", "asynchronous", "of_a_model"), vectors()),
            "one": FIRST,
            "wrong_key": Raises("ValueError", None),
        },
    ),
    Client(
        "LlamaIndex's rerankers",
        "llama-index",
        "llama_index_rankers.py",
        {"tei": ranked(2), "jina": ranked(2), "unknown_model": Raises("RuntimeError", None, UNKNOWN)},
    ),
    Client(
        "infinity-client",
        "infinity",
        "infinity_python.py",
        {
            **dict.fromkeys(("vectors", "without_a_model"), vectors()),
            "ranked": ranked(),
            "ranked_documents": texts_in_order,
            "listed": model_names,
            "healthy": equals(200),
            "unknown_model": equals(404),
            "wrong_key": equals(401),
        },
    ),
    Client(
        "ollama",
        "openai",
        "ollama_python.py",
        {
            **dict.fromkeys(("vectors", "first_route", "asynchronous", "tagged"), vectors()),
            "one": FIRST,
            "shorter": vectors("shorter"),
            "query": vectors("queries"),
            "listed": equals([["encoder:latest"], True, ["embedding"], "success"]),
            "unknown_model": Raises("ResponseError", 404, UNKNOWN),
            "too_many": Raises("ResponseError", 422, MANY),
            "wrong_key": Raises("ResponseError", 401, KEYS),
        },
    ),
    Client(
        "langchain-ollama",
        "langchain",
        "langchain_ollama_embeddings.py",
        {
            **dict.fromkeys(("vectors", "asynchronous"), vectors()),
            "one": FIRST,
            "unknown_model": Raises("ResponseError", 404, UNKNOWN),
            "unknown_at_the_start": Raises("ValueError", None, "nobody"),
            "wrong_key": Raises("ResponseError", 401, KEYS),
        },
    ),
    Client(
        "llama-index-embeddings-ollama",
        "llama-index",
        "llama_index_ollama.py",
        {
            **dict.fromkeys(("vectors", "asynchronous"), vectors()),
            "one": FIRST,
            "unknown_model": Raises("ResponseError", 404, UNKNOWN),
            "wrong_key": Raises("ResponseError", 401, KEYS),
        },
    ),
    Client(
        "ollama-haystack",
        "haystack",
        "haystack_ollama.py",
        {"documents": vectors(), "text": FIRST, "unknown_model": Raises("ResponseError", 404, UNKNOWN)},
    ),
    Client(
        "Chroma",
        "chroma",
        "chroma_functions.py",
        {
            **dict.fromkeys(("vectors_openai", "vectors_tei", "vectors_ollama"), vectors()),
            "retrieved": second_text,
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
        },
    ),
    Client(
        "openai (Node)",
        "node",
        "openai_node.mjs",
        {
            **dict.fromkeys(("vectors", "numbers"), vectors()),
            "one": FIRST,
            "shorter": vectors("shorter"),
            "models": model_names,
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "too_many": Raises("UnprocessableEntityError", 422, MANY),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "@langchain/openai (Node)",
        "node",
        "langchain_node.mjs",
        {
            "vectors": vectors(),
            "one": FIRST,
            "shorter": vectors("shorter"),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "ollama (Node)",
        "node",
        "ollama_node.mjs",
        {
            **dict.fromkeys(("vectors", "langchain"), vectors()),
            "one": FIRST,
            "shorter": vectors("shorter"),
            "unknown_model": Raises("ResponseError", 404, UNKNOWN),
            "wrong_key": Raises("ResponseError", 401, KEYS),
        },
    ),
    Client(
        "ai-sdk (Node)",
        "node",
        "ai_sdk_node.mjs",
        {
            **dict.fromkeys(("compatible", "openai"), vectors()),
            "one": FIRST,
            "cohere_query": vectors("queries"),
            "cohere_rerank": ranked(),
            "unknown_model": Raises("AI_APICallError", 404, UNKNOWN),
            "wrong_key": Raises("AI_APICallError", 401, KEYS),
        },
    ),
    Client(
        "cohere-ai (Node)",
        "node",
        "cohere_node.mjs",
        {
            "documents": vectors("documents"),
            "query": vectors("queries"),
            "rerank": ranked(),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("UnauthorizedError", 401, KEYS),
        },
    ),
    Client(
        "@huggingface/inference (Node)",
        "node",
        "huggingface_node.mjs",
        {
            "vectors": vectors(),
            "one": FIRST,
            "similarity": cosines,
            "wrong_key": Raises("InferenceClientProviderApiError", None),
        },
    ),
)
