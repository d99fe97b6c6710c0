"""The product with the oldest releases that pyproject.toml takes: export, encode, serve, a job, an index, MCP.

    PYTHONPATH=.:export:tests ENVIRONMENT/bin/python tests/packaging/oldest.py CHECKPOINT

CHECKPOINT is all-MiniLM-L6-v2, whose vectors are compared with what its authors published. Without torch. Exit code 1
where a step fails. `make oldest` makes the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from integrations.suites.pdf_files import pdf
from loopback import Started

PROJECT = Path(__file__).parents[2]
EXTRAS = ("cpu", "export", "server", "bulk", "parquet", "pdf", "mcp")  # as the Makefile has them
TEXTS = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
PUBLISHED = [0.6945, 0.9429, 0.2569]  # similarities of the first to the others, in full precision
WITHIN = {"fp32": 1e-4, "int8": 0.03, "bf16": 0.005}
PARTS = 3
OLDEST_PYTHON = (3, 11)
Vectors = npt.NDArray[np.float32]


def lowest() -> dict[str, str]:
    """The least version of each package that is asked for, as pyproject.toml says."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    found = (re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", line) for line in wanted)
    return {match[1]: match[2] for match in found if match}


def installed() -> str:
    """What is there of it; another Python may lack wheels of the oldest."""
    there = {name: importlib.metadata.version(name) for name in lowest()}
    for name, least in lowest().items() if sys.version_info[:2] == OLDEST_PYTHON else ():
        assert f"{there[name]}.".startswith(f"{least}."), f"{name} is {there[name]}, the oldest is {least}"
    return ", ".join(f"{name} {version}" for name, version in there.items())


def command(*arguments: object) -> str:
    """What `fastembed-rt` prints."""
    line = [sys.executable, "-m", "fastembed_rt", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, arguments[:2]))}: {done.stdout}{done.stderr}"
    return done.stdout


def encoded(model: Path) -> Vectors:
    """(4, dim) of the texts in full precision, after each graph gave what was published."""
    from fastembed_rt import EmbeddingModel
    from fastembed_rt.manifest import read

    vectors = {}
    for variant in read(model).variants:
        with EmbeddingModel(model, precision=variant.precision, target=variant.target) as loaded:
            found = loaded.encode(TEXTS)
            scores = loaded.similarity(found[:1], found[1:])[0]
        np.testing.assert_allclose(
            scores, PUBLISHED, rtol=0, atol=WITHIN[variant.precision], err_msg=variant.graph.file
        )
        vectors[variant.precision, variant.target] = found
    with EmbeddingModel(model, precision="fp32") as loaded:
        return np.asarray(loaded.encode(TEXTS), np.float32)


def serve(model: Path, wanted: Vectors) -> None:
    """Vectors of the server, by two dialects."""
    with Started(model, "--precision", "fp32") as server:
        body = {"input": TEXTS, "model": model.name, "encoding_format": "base64"}
        status, _, answer = server.ask("POST", "/v1/embeddings", body, **{"content-type": "application/json"})
        assert status == 200, answer
        rows = [np.frombuffer(base64.b64decode(row["embedding"]), np.float32) for row in answer["data"]]
        np.testing.assert_array_equal(rows, wanted)
        status, _, answer = server.ask("POST", "/embed", {"inputs": TEXTS}, **{"content-type": "application/json"})
        assert status == 200, answer
        np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-7)
        assert server.metrics()


def job(model: Path, wanted: Vectors, home: Path) -> None:
    """A job in parts that is resumed, and one file of the same rows."""
    import pyarrow.parquet

    texts = home / "texts.jsonl"
    texts.write_text("".join(json.dumps({"id": k, "text": text}) + "\n" for k, text in enumerate(TEXTS * PARTS)))
    options = ["--precision", "fp32", "--part-rows", len(TEXTS), "--resume", "-q"]
    command("embed", model, texts, "--shards", home / "parts", *options)
    parts = sorted((home / "parts").glob("**/*.parquet"))
    assert len(parts) == PARTS, parts
    parts[1].unlink()
    command("embed", model, texts, "--shards", home / "parts", *options)
    command("embed", model, texts, "-o", home / "one.parquet", "--precision", "fp32", "-q")
    for files in (parts, [home / "one.parquet"]):
        tables = [pyarrow.parquet.read_table(file) for file in files]
        rows = [row for table in tables for row in table.column("embedding").to_pylist()]
        np.testing.assert_array_equal(np.asarray(rows, np.float32), np.tile(wanted, (PARTS, 1)))


def index(model: Path, home: Path) -> None:
    """A folder with a PDF and a page of HTML, found by a question."""
    folder = home / "folder"
    folder.mkdir()
    (folder / "pages.pdf").write_bytes(pdf(["The house is red.", "Parcels to islands take two days longer."]))
    (folder / "page.html").write_text("<html><p>You can cancel an order until it has been packed.</p></html>")
    command("index", "build", folder, "--model", model, "-q")
    question = "How long does a parcel to an island take?"
    hit = json.loads(command("search", question, "--folder", folder, "-k", 1, "--json", "-q"))
    assert (hit["file"], hit["line"]) == ("pages.pdf", "page 2"), hit


async def tools(model: Path, home: Path, wanted: Vectors) -> None:
    """Vectors and a search over MCP, by the protocol's own client."""
    from mcp import Client, StdioServerParameters

    (home / "notes").mkdir()
    (home / "notes" / "note.md").write_text("Parcels to islands take two days longer.\n")
    line = ["-m", "fastembed_rt", "mcp", str(model), "--precision", "fp32", "--folder", str(home / "notes")]
    async with Client(StdioServerParameters(command=sys.executable, args=line, env=None)) as client:
        answer: Any = await client.call_tool("embed", {"texts": TEXTS})
        np.testing.assert_allclose(answer.structured_content["vectors"], wanted, rtol=0, atol=1e-6)
        answer = await client.call_tool("search", {"query": "slow parcels"})
        assert [hit["path"] for hit in answer.structured_content["hits"]] == ["note.md"]


def main() -> int:
    """Step by step, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    asked = parser.parse_args()
    print(installed(), flush=True)
    command("doctor")
    with tempfile.TemporaryDirectory(prefix="fastembed-rt-oldest-") as place:
        home = Path(place)
        model = home / "minilm"
        command("export", asked.checkpoint, "-o", model, "--precision", "fp32,int8,bf16")
        print("exported", flush=True)
        wanted = encoded(model)
        print("encoded as published", flush=True)
        serve(model, wanted)
        print("served", flush=True)
        job(model, wanted, home)
        print("embedded in parts", flush=True)
        index(model, home)
        print("indexed and searched", flush=True)
        asyncio.run(tools(model, home, wanted))
        print("answered over MCP", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
