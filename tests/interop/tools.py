"""The tools that open a model directory, each with its environment, and what its test runs there.

`make interop` makes the environments. Packages are named with the versions that docs/interop.md speaks of.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).with_name("scripts")
ENVIRONMENTS = Path(os.environ.get("FASTEMBED_RT_INTEROP", ROOT / "build" / "interop"))
# transformers.js cuts texts behind their special tokens, and so takes the last one off: these come near, not the same.
EXACT, CUT_BY_TRANSFORMERS_JS = 0.99999, 0.99


@dataclass(frozen=True)
class Tool:
    """A tool as one test runs it."""

    name: str
    environment: str  # folder in ENVIRONMENTS
    script: str
    variables: Mapping[str, str] = field(default_factory=dict)
    cut_texts: float = EXACT  # least cosine of texts beyond max_length


TOOLS = (
    Tool("sentence-transformers 5", "sentence-transformers-5", "sentence_transformers_onnx.py"),
    Tool("sentence-transformers 6", "sentence-transformers-6", "sentence_transformers_6_onnx.py"),
    # optimum-onnx is a part of sentence-transformers' ONNX back end.
    Tool("optimum, feature extraction", "sentence-transformers-5", "optimum_feature_extraction.py"),
    Tool("optimum, custom tasks", "sentence-transformers-5", "optimum_custom_tasks.py"),
    Tool("fastembed", "fastembed", "fastembed_custom.py"),
    Tool("light-embed", "light-embed", "light_embed_local.py"),
    Tool("txtai", "txtai", "txtai_embeddings.py"),
    Tool("onnxruntime", "onnxruntime", "plain_onnxruntime.py"),
    Tool("transformers.js, pipeline", "node", "transformers_pipeline.mjs", cut_texts=CUT_BY_TRANSFORMERS_JS),
    Tool("transformers.js, model", "node", "transformers_model.mjs", cut_texts=CUT_BY_TRANSFORMERS_JS),
    Tool("onnxruntime-node", "node", "onnxruntime_node.mjs", {"RUNTIME": "onnxruntime-node"}),
    Tool("onnxruntime-web, wasm", "node", "onnxruntime_node.mjs", {"RUNTIME": "onnxruntime-web"}),
)


def missing(tool: Tool) -> str | None:
    """Why a tool cannot be run here, if so."""
    place = ENVIRONMENTS / tool.environment
    if (place / ("node_modules" if tool.environment == "node" else "bin/python")).exists():
        return None
    return f"{place} is not there; make interop makes it"


def run(tool: Tool, directory: Path, texts: Path, out: Path) -> None:
    """Run a tool's script on a model directory; it writes the vectors of the texts to `out`."""
    place = ENVIRONMENTS / tool.environment
    script = SCRIPTS / tool.script
    if tool.environment == "node":  # which looks for modules where the script lies
        copy = place / tool.script
        copy.write_text(script.read_text(encoding="utf-8"), encoding="utf-8")
        command = ["node", str(copy)]
    else:
        command = [str(place / "bin" / "python"), str(script)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [*command, str(directory), str(texts), str(out)],
        env={**kept, **offline, **tool.variables},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{tool.name}: {done.stderr[-2000:]}"
