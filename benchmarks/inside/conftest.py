"""The models whose parts are timed: one with random weights, made for the session, and the one named with --model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fastembed_rt import manifest
from fastembed_rt.errors import FastembedRtError
from fastembed_rt.machine import available_threads

if TYPE_CHECKING:
    from benchmarks.inside.apart import Parts

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # neither is installed: benchmarks, and checkpoints.py
RANDOM, GIVEN = "random", "given"
PRECISIONS = ("fp32", "int8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--model", metavar="DIR", help="time the parts of this model directory too")
    parser.addoption("--threads", type=int, help="threads of a session (default: what this process may use)")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a directory that holds no model before anything is timed."""
    given = config.getoption("--model")
    try:
        if given is not None:
            manifest.read(Path(given))
    except FastembedRtError as error:
        raise pytest.UsageError(f"--model {given}: {error}") from error


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> dict[str, Path]:
    """Model directories by RANDOM and, where there is one, GIVEN."""
    from checkpoints import save_sentence_transformers

    from fastembed_rt_export.pipeline import ExportOptions, export

    root = tmp_path_factory.mktemp("parts")
    checkpoint = save_sentence_transformers(root / "checkpoint", hidden_size=48)
    export(str(checkpoint), ExportOptions(output=root / "model", precisions=PRECISIONS, verify=False))
    given = request.config.getoption("--model")
    return {RANDOM: root / "model", **({GIVEN: Path(given)} if given else {})}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every part of every model in both precisions; what a given directory does not hold is skipped and says so."""
    if "parts" in metafunc.fixturenames:
        models = (RANDOM, GIVEN) if metafunc.config.getoption("--model") else (RANDOM,)
        rows = [(model, precision) for model in models for precision in PRECISIONS]
        metafunc.parametrize("parts", rows, indirect=True, ids="-".join, scope="session")


@pytest.fixture(scope="session")
def parts(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Parts:
    """The model of this case, taken apart."""
    from benchmarks.inside.apart import Parts

    model, precision = request.param
    made = Parts(directories[model], precision, request.config.getoption("--threads") or available_threads())
    held = {variant.precision for variant in made.manifest.variants}
    if precision not in held:
        pytest.skip(f"{made.directory} has no {precision}")
    return made
