"""Haystack, stores, indexes and clients of servers, each in its environment with its own suite.

`make integrations-stores` makes the environments and runs this; FASTEMBED_RT_INTEGRATIONS names their folder. With
FASTEMBED_RT_INTEGRATIONS_TABLE, a file gets a line for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from integrations.frameworks import ROOT, Framework
from integrations.stores import STORES, make_case

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.skipif(
        "FASTEMBED_RT_INTEGRATIONS" not in os.environ,
        reason="FASTEMBED_RT_INTEGRATIONS is unset: make integrations-stores",
    ),
]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    make_case(folder)
    return folder


@pytest.fixture(scope="module")
def haystack_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built and installed into a folder of its own."""
    work = tmp_path_factory.mktemp("package")
    source = ROOT / "packages" / "fastembed-rt-haystack"
    python = [sys.executable, "-m"]
    for command in (
        [*python, "build", "--wheel", "--no-isolation", "--outdir", str(work / "dist"), str(source)],
        [*python, "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(work / "site")],
    ):
        words = [*command, *map(str, (work / "dist").glob("*.whl"))] if "install" in command else command
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return work / "site"


@pytest.mark.parametrize("store", STORES, ids=[store.name for store in STORES])
def test_a_store(store: Framework, case: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if (why := store.missing()) is not None:
        pytest.skip(why)
    packages = request.getfixturevalue("haystack_package") if store.name == "Haystack" else None
    count = store.run(case, tmp_path, packages=packages)
    assert count > 0
    if path := os.environ.get("FASTEMBED_RT_INTEGRATIONS_TABLE"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{store.name}\t{count}\n")
