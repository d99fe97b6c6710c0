"""schemathesis on the OpenAPI file that the server writes: requests that fit it and requests that do not.

`make clients` makes its environment. FASTEMBED_RT_SCHEMATHESIS_SECONDS says for how long it goes on (default: 60).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from checkpoints import save_sentence_transformers
from cross_encoders import save_cross_encoder
from exports import quick
from multi_vectors import save_multi_vector
from sparse_encoders import save_splade

from clients.running import ENVIRONMENTS
from clients.served import serving

KEY = "a-key-of-the-tests"
SECONDS = os.environ.get("FASTEMBED_RT_SCHEMATHESIS_SECONDS", "60")
# What is written of a request is not all: texts beyond the limits, names of models and prompts, ids of the vocabulary.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "ignored_auth",
)

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif("FASTEMBED_RT_CLIENTS" not in os.environ, reason="FASTEMBED_RT_CLIENTS is unset: make clients"),
]


def test_answers_are_as_the_file_says_and_never_a_fault_of_the_server(tmp_path: Path) -> None:
    command = ENVIRONMENTS / "schemathesis" / "bin" / "schemathesis"
    if not command.exists():
        pytest.skip(f"{command} is not there; make clients makes it")
    models = {name: tmp_path / name for name in ("encoder", "ranker", "splade", "colbert")}
    quick(save_sentence_transformers(tmp_path / "tiny", max_seq_length=40), models["encoder"], tokens=True)
    quick(save_cross_encoder(tmp_path / "tiny-ranker"), models["ranker"])
    quick(save_splade(tmp_path / "tiny-splade"), models["splade"])
    quick(save_multi_vector(tmp_path / "tiny-colbert", query_length=20, document_length=40), models["colbert"])
    with serving(models, tmp_path / "log", "--api-key", KEY) as url:
        done = subprocess.run(
            [
                *(str(command), "run", f"{url}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
                *("--checks", ",".join(CHECKS), "--max-time", SECONDS, "--seed", "1", "--continue-on-failure"),
                *("--no-color", "--generation-database", "none"),
            ],
            capture_output=True,
            text=True,
            timeout=int(SECONDS) + 300,
            cwd=tmp_path,
            check=False,
        )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Traceback" not in (tmp_path / "log").read_text(encoding="utf-8")
