"""LangChain, LlamaIndex, DSPy, spaCy, txtai, BERTopic, MTEB and MCP, each in its environment with its own suite.

`make integrations-frameworks` makes the environments and runs this; FASTEMBED_RT_INTEGRATIONS names their folder.
MTEB's tasks want FASTEMBED_RT_REAL, a folder with minilm, and FASTEMBED_RT_DATA. With FASTEMBED_RT_INTEGRATIONS_TABLE,
a file gets a line for each suite.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from exports import quick

from integrations.frameworks import FRAMEWORKS, ROOT, Framework, make_case

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(
        "FASTEMBED_RT_INTEGRATIONS" not in os.environ,
        reason="FASTEMBED_RT_INTEGRATIONS is unset: make integrations-frameworks",
    ),
]
MINILM = Path(os.environ.get("FASTEMBED_RT_REAL", ".")) / "minilm"
TASKS = MINILM.is_dir() and "FASTEMBED_RT_DATA" in os.environ
SECONDS = 1800  # MTEB's tasks on torch, on two cores


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    make_case(folder)
    return folder


@pytest.fixture(scope="module")
def langchain_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built and installed into a folder of its own."""
    work = tmp_path_factory.mktemp("package")
    source = ROOT / "packages" / "langchain-fastembed-rt"
    _run("build", "--wheel", "--no-isolation", "--outdir", work / "dist", source)
    (wheel,) = (work / "dist").glob("langchain_fastembed_rt-*.whl")
    _run("pip", "install", "--quiet", "--no-deps", "--no-index", "--target", work / "site", wheel)
    return work / "site"


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=[framework.name for framework in FRAMEWORKS])
def test_a_framework(framework: Framework, case: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if (why := framework.missing()) is not None:
        pytest.skip(why)
    packages = None
    if framework.name == "langchain-fastembed-rt":
        packages = request.getfixturevalue("langchain_package")
    elif framework.name == "MTEB":
        framework = replace(framework, variables=tasks(tmp_path))
    count = framework.run(case, tmp_path, packages=packages, seconds=SECONDS)
    assert count > 0
    if path := os.environ.get("FASTEMBED_RT_INTEGRATIONS_TABLE"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{framework.name}\t{count}\n")


def tasks(work: Path) -> dict[str, str]:
    """What its suite is told of a real checkpoint."""
    if not TASKS:
        pytest.skip("FASTEMBED_RT_REAL names no folder with minilm, or FASTEMBED_RT_DATA none of texts")
    quick(MINILM, work / "exported", precisions=("fp32", "int8"))
    told = {"CHECKPOINT": str(MINILM), "EXPORTED": str(work / "exported"), "DATA": os.environ["FASTEMBED_RT_DATA"]}
    return {f"FASTEMBED_RT_{name}": value for name, value in told.items()}


def _run(module: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
