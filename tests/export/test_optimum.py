"""Architectures without a builder, traced by optimum in an environment of its own: it pins an old transformers.

FASTEMBED_RT_OPTIMUM names the python of that environment: `pip install -e '.[cpu,verify,optimum]' pytest` makes one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

PYTHON = os.environ.get("FASTEMBED_RT_OPTIMUM", "")
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="FASTEMBED_RT_OPTIMUM names no python with optimum"),
]


def run(work: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script in the other environment."""
    paths = os.pathsep.join(str(path) for path in (ROOT, ROOT / "export", ROOT / "tests"))
    command = [PYTHON, "-W", "ignore", str(Path(__file__).with_name("optimum_script.py")), str(work), *arguments]
    env = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, env=env)


def manifest(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-2000:]
    body: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return body


@pytest.mark.parametrize(("model_type", "options"), [("roformer", []), ("bert", ["--exporter", "optimum"])])
def test_a_traced_graph_has_heads_contract_and_gate_of_the_others(
    tmp_path: Path, model_type: str, options: list[str]
) -> None:
    body = manifest(run(tmp_path, model_type, "int8,fp32", *options))
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


def test_a_graph_without_products_with_weights_has_no_int8(tmp_path: Path) -> None:
    """SqueezeBERT's layers are convolutions."""
    done = run(tmp_path, "squeezebert", "int8")
    assert done.returncode != 0
    assert "int8 has nothing to do" in done.stderr
    assert not (tmp_path / "made").exists()


def test_the_trace_of_a_convolution_over_padding_does_not_pass_the_gate(tmp_path: Path) -> None:
    """ConvBERT's vectors depend on how much padding its neighbours bring: no graph can have the reference's."""
    done = run(tmp_path, "convbert", "fp32")
    assert done.returncode != 0
    assert "out of bounds" in done.stderr
