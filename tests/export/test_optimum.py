"""Architectures without a builder, traced by optimum in an environment of its own: it pins an old transformers.

`make optimum` makes that environment and runs these; FASTEMBED_RT_OPTIMUM names its python.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

PYTHON = os.environ.get("FASTEMBED_RT_OPTIMUM", "")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="FASTEMBED_RT_OPTIMUM names no python with optimum; run make optimum"),
]


# Right to 1e-5, alone and in batches; with a name of their own for what others call hidden_size, decoders and encoders
# that optimum asks more inputs for than sentence-transformers gives, and some that it has no row for.
RIGHT = ["xlm", "flaubert", "mobilebert", "roformer", "ibert", "rembert", "splinter", "squeezebert", "big_bird"]
RIGHT += ["megatron-bert", "layoutlm", "lilt", "gpt2", "mpt", "bloom", "llama", "bart", "mt5", "xlm-roberta-xl"]
RIGHT += ["xlnet"]
CHANGED_BY_PADDING = ["convbert", "nystromformer", "yoso"]
# Three layers of four groups: one input of query, key and value, those of output, up and down.
GROUPS = {"gpt2": 12, "bart": 8, "convbert": 12, "squeezebert": 36, "xlnet": 13}
REFUSED = {
    "bros": r"the model of model_type 'bros' itself does not run on .*: ValueError: You have to specify bbox",
    "fnet": r"optimum cannot trace model_type 'fnet' \(it mixes tokens by a Fourier transform\): Unsupported",
    "led": r"optimum's trace of model_type 'led' \(it pads a text .*\) holds for the 16 tokens that were traced",
    "longformer": r"leave --exporter out, there is a builder for it",
    "mamba": r"it goes token by token, whose number a trace keeps",
    "nystromformer:means": r"itself does not run on .*: RuntimeError: shape .* is invalid",
    "reformer": r"turns 1 tokens into states of shape \(1, 48\), expected 24 numbers for each token",
    "xmod": r"holds for the 16 tokens that were traced and does not run on texts of 1 to 64 tokens",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The script in the other environment."""
    paths = os.pathsep.join(str(path) for path in (ROOT, ROOT / "export", ROOT / "tests"))
    command = [PYTHON, "-W", "ignore", str(Path(__file__).with_name("optimum_script.py")), *arguments]
    env = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=1500, env=env)


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-2000:]
    body: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return body


@pytest.mark.parametrize(("model_type", "options"), [("roformer", []), ("bert", ["--exporter", "optimum"])])
def test_a_traced_graph_has_heads_contract_and_gate_of_the_others(
    tmp_path: Path, model_type: str, options: list[str]
) -> None:
    body = last_line(run("export", str(tmp_path), model_type, "int8,fp32", *options))
    assert f"model_type {model_type}: traced by optimum" in body["notes"]
    assert body["modules"] == [f"Transformer({model_type})", "Pooling(mean)", "Dense(24 -> 16, tanh)", "Normalize"]
    assert body["dim"] == 16
    assert body["parity"]["status"] == "passed"
    assert body["parity"]["variants"]["model.onnx"]["max_abs_diff"] < 1e-5
    int8, fp32 = body["variants"]
    assert (int8["precision"], fp32["precision"]) == ("int8", "fp32")
    assert int8["inputs"] == fp32["inputs"] == ["input_ids", "attention_mask"]
    assert (
        int8["notes"]["int8_groups"] == 12
    )  # query, key and value as one, output, up and down in each of three layers
    assert int8["notes"]["fidelity"]["mean_cosine"] > 0.99


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of the export of a random checkpoint of each; an error that is not ours ends the script."""
    return last_line(run("survey", str(tmp_path_factory.mktemp("survey")), *RIGHT, *CHANGED_BY_PADDING, *REFUSED))


@pytest.mark.parametrize("model_type", [*RIGHT, *CHANGED_BY_PADDING])
def test_a_traced_encoder_has_the_vectors_of_the_reference(found: dict[str, Any], model_type: str) -> None:
    made = found[model_type]
    assert made["max_abs_diff"] < 1e-5
    assert made["max_positions"] == (2048 if model_type == "xlnet" else 63 if model_type == "lilt" else 64)


@pytest.mark.parametrize("model_type", [*RIGHT, *CHANGED_BY_PADDING])
def test_a_traced_encoder_has_int8_at_default_gates(found: dict[str, Any], model_type: str) -> None:
    int8 = found[model_type]["int8"]
    assert int8["min_cosine"] >= 0.98, int8
    assert int8["mean_cosine"] < 1 - 1e-7, "that was not int8"
    assert int8["groups"] + int8["float_groups"] >= GROUPS.get(model_type, 4)


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_cannot_be_traced_is_refused_in_a_sentence_with_the_reason(found: dict[str, Any], model_type: str) -> None:
    assert found[model_type]["error"] == "UnsupportedCheckpointError"
    assert re.search(REFUSED[model_type], found[model_type]["text"])


@pytest.mark.parametrize("model_type", [*RIGHT, *CHANGED_BY_PADDING])
def test_only_what_padding_changes_runs_without(found: dict[str, Any], model_type: str) -> None:
    """MobileBERT reads its neighbours' embeddings: the pad token's, which is not zero here."""
    changed = model_type in (*CHANGED_BY_PADDING, "mobilebert")
    assert found[model_type]["padding"] is not changed
    assert any(note.startswith("padding changes the states") for note in found[model_type]["notes"]) is changed


@pytest.mark.parametrize("model_type", ["convbert", "nystromformer"])
def test_vectors_that_padding_changes_in_the_reference_are_here_those_of_a_text_alone(
    tmp_path: Path, model_type: str
) -> None:
    done = last_line(run("padding", str(tmp_path), model_type))
    assert done["reference"] > 1e-3  # of its own vectors of texts alone, in one batch
    assert done["fp32 to the reference"] < 1e-5
    assert done["fp32 in a batch"] < 1e-6
    assert done["int8 in a batch"] == 0.0
