"""Frameworks, each with its environment and suite; the models that the suites are run with.

`make integrations-frameworks` makes the environments. A suite is a file of tests for the environment's own pytest, run
there with the models of a case; suites/conftest.py has what it compares with.
"""

from __future__ import annotations

import json
import os
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from signals import of_a_terminal
from task_models import PROMPTS, QUERY, save_all

ROOT = Path(__file__).resolve().parents[2]
SUITES = Path(__file__).with_name("suites")
ENVIRONMENTS = Path(os.environ.get("FASTEMBED_RT_INTEGRATIONS", ROOT / "build" / "integrations"))
OFFLINE = {"HF_HUB_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "true", "ANONYMIZED_TELEMETRY": "false"}
TEXTS = [
    "a dog runs quickly under the old tree!",
    "the house is red",
    "a cat sleeps. the river, the light",
    "new",
    "the dog and the cat run to the house",
    "light over the river",
    "an old tree , a new house",
    "a dog",
]


@dataclass(frozen=True)
class Framework:
    """A framework as one test runs it."""

    name: str
    environment: str  # folder in ENVIRONMENTS
    suite: str
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def python(self) -> Path:
        return ENVIRONMENTS / self.environment / "bin" / "python"

    def missing(self) -> str | None:
        """Why it cannot be run here, if so."""
        return None if self.python.exists() else f"{self.python} is not there; make integrations-frameworks makes it"

    def run(self, case: Path, out: Path, *, packages: Path | None = None, seconds: int = 500) -> int:
        """How many tests passed; AssertionError where one failed or was skipped.

        `packages` is a folder that is looked in first.
        """
        report = out / "report.xml"
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST"))}
        path = os.pathsep.join(map(str, [*([packages] if packages else []), ROOT]))
        command = ["-m", "pytest", "-c", SUITES / "pytest.ini", "--rootdir", SUITES, "--confcutdir", SUITES]
        command += ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", SUITES / self.suite]
        with of_a_terminal():
            done = subprocess.run(
                [str(self.python), *map(str, command)],
                env={**clean, **OFFLINE, **self.variables, "PYTHONPATH": path, "FASTEMBED_RT_CASE": str(case)},
                cwd=out,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        assert done.returncode == 0, f"{self.name}: {done.stdout[-6000:]}\n{done.stderr[-2000:]}"
        (counted,) = ET.parse(report).getroot().iter("testsuite")
        assert counted.attrib["skipped"] == "0", done.stdout[-3000:]
        return int(counted.attrib["tests"])


FRAMEWORKS = (
    Framework("LangChain", "langchain", "langchain_suite.py"),
    Framework(
        "langchain-fastembed-rt", "langchain", "langchain_suite.py", {"FASTEMBED_RT_MODULE": "langchain_fastembed_rt"}
    ),
    Framework("LlamaIndex", "llama-index", "llama_index_suite.py"),
    Framework("DSPy", "dspy", "dspy_suite.py"),
    Framework("spaCy", "spacy", "spacy_suite.py"),
    Framework("txtai", "txtai", "txtai_suite.py"),
    Framework("BERTopic", "bertopic", "bertopic_suite.py"),
    Framework("MTEB", "mteb", "mteb_suite.py"),
    Framework("MCP", "mcp", "mcp_suite.py"),
)


def make_case(folder: Path) -> None:
    """A small model of each task, and what sentence-transformers makes of the texts."""
    models = save_all(folder)
    told = {"texts": TEXTS, "query": QUERY, "prompts": PROMPTS}
    (folder / "case.json").write_text(json.dumps(told), encoding="utf-8")
    dense, sparse, ranker = (models[name].reference for name in ("dense", "splade", "reranker"))
    np.savez(
        folder / "reference.npz",
        documents=dense.encode_document(TEXTS),
        query=dense.encode_query(QUERY),
        weights=sparse.encode_document(TEXTS, convert_to_tensor=True).to_dense().numpy(),
        query_weights=sparse.encode_query(QUERY, convert_to_tensor=True).to_dense().numpy(),
        scores=ranker.predict([(QUERY, text) for text in TEXTS]),
    )
