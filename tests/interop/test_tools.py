"""One exported directory opens in other tools, with the checkpoint's vectors. `make interop` runs this.

FASTEMBED_RT_REAL names the folder of checkpoints; FASTEMBED_RT_INTEROP_TABLE a file that gets a line for each result.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from exports import quick

from fastembed_rt.manifest import Manifest
from fastembed_rt.text.tokenizer import TextTokenizer
from interop.tools import EXACT, TOOLS, Tool, missing, run

REAL = Path(os.environ.get("FASTEMBED_RT_REAL", "."))
CHECKPOINTS = [name for name in ("minilm", "mpnet", "e5") if (REAL / name / "config.json").is_file()]
SHORT, LONG = 200, 8  # texts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.interop,
    pytest.mark.skipif(not CHECKPOINTS, reason="FASTEMBED_RT_REAL names no folder with minilm, mpnet or e5"),
]


@dataclass(frozen=True)
class Case:
    """An exported checkpoint, and what sentence-transformers on torch makes of the texts."""

    name: str
    directory: Path
    described: Manifest
    texts: Path
    wanted: npt.NDArray[np.float32]
    fits: npt.NDArray[np.bool_]  # texts that are not cut


def real_texts() -> list[str]:
    """Sentences, and paragraphs longer than most models take, from the texts that int8 is calibrated on."""
    lines = (resources.files("fastembed_rt_export") / "data" / "calibration.jsonl").read_text(encoding="utf-8")
    texts = sorted((json.loads(line)["text"] for line in lines.splitlines()), key=len)
    return texts[:SHORT] + texts[-LONG:]


@pytest.fixture(scope="module", params=CHECKPOINTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Exported with --layout hub."""
    from sentence_transformers import SentenceTransformer

    work = tmp_path_factory.mktemp(request.param)
    described = quick(REAL / request.param, work / "exported", layout="hub")
    texts = real_texts()
    (work / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    reference = SentenceTransformer(str(REAL / request.param), device="cpu", local_files_only=True)
    tokenizer = TextTokenizer(work / "exported" / "tokenizer.json", max_length=10_000)
    fits = np.asarray(tokenizer.count(texts)) <= described.max_length
    return Case(request.param, work / "exported", described, work / "texts.json", reference.encode(texts), fits)


@pytest.mark.parametrize("tool", TOOLS, ids=[tool.name for tool in TOOLS])
def test_a_tool_gives_the_checkpoints_vectors(tool: Tool, case: Case, tmp_path: Path) -> None:
    if (why := missing(tool)) is not None:
        pytest.skip(why)
    out = tmp_path / ("vectors.json" if tool.script.endswith(".mjs") else "vectors.npy")
    run(tool, case.directory, case.texts, out)
    found: Any = np.load(out) if out.suffix == ".npy" else np.array(json.loads(out.read_text()))
    cosines = (_unit(found) * _unit(case.wanted)).sum(1)
    whole, cut = cosines[case.fits], cosines[~case.fits]
    record(tool, case, whole, cut)
    assert len(whole) >= SHORT and whole.min() >= EXACT
    assert cut.min(initial=1) >= tool.cut_texts


def record(tool: Tool, case: Case, whole: npt.NDArray[np.float64], cut: npt.NDArray[np.float64]) -> None:
    if path := os.environ.get("FASTEMBED_RT_INTEROP_TABLE"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{tool.name}\t{case.name}\t{whole.min():.7f}\t{cut.min(initial=1):.7f}\t{len(cut)}\n")


def _unit(vectors: Any) -> npt.NDArray[np.float64]:
    wide = np.asarray(vectors, dtype=np.float64)
    made: npt.NDArray[np.float64] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return made
