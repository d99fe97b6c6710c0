"""What README and the pages of docs tell a user to type: their Python runs as written, their commands are those of the
command line, the calls that they set side by side give the same, and their links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
import shlex
import sqlite3
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import Made, copied
from causal_rerankers import save_causal_reranker
from checkpoints import save_sentence_transformers, save_transformers
from cross_encoders import save_classifier
from exports import quick
from inference_free import save_inference_free
from jina_checkpoints import as_v5, save_embedder
from sentence_transformers import (
    CrossEncoder,
    MultiVectorEncoder,
    SentenceTransformer,
    SparseEncoder,
    quantize_embeddings,
)
from test_late_interaction import save_multi_vector  # type: ignore[import-not-found]
from test_sparse import save_splade  # type: ignore[import-not-found]
from tolerances import REFERENCE, close

import fastembed_rt
from fastembed_rt import FastembedRtError, cli, errors

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
CONTENTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
REPOSITORY = "https://github.com/fastembed-rt/fastembed-rt"
GPU = "provider="  # what only a machine with a GPU runs
NETWORK = "sentence-transformers/"  # a hub id
DIMS = 384  # all-MiniLM-L6-v2's, which pages name
CLIENTS = "clients.md"  # other projects' clients, whose calls tests/clients runs: `make clients`
ENGINES = "scale.md"  # other projects' engines, whose scripts tests/scale runs: `make scale`
# What the pages that compare calls speak of.
SAID: dict[str, Any] = {
    "texts": ["a dog runs", "the house is red", ""],
    "query": "where is the dog?",
    "pairs": [("where is the dog?", "a dog runs"), ("a house", "the house is red")],
    "vectors": np.random.default_rng(0).normal(size=(3, DIMS)).astype(np.float32),
    "ranges": np.array([[-0.2] * DIMS, [0.2] * DIMS], np.float32),
}


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", CONTENTS[page], re.DOTALL | re.MULTILINE)
    return [block for name, block in found if name == language]


def commands(page: str) -> Iterator[list[str]]:
    """The words behind `fastembed-rt` in each line of the shell blocks."""
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == [cli.PROG]:
            yield words[1:]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the models and files that the pages name, small and random."""
    root = tmp_path_factory.mktemp("readme")
    prompts = {"query": "query: ", "document": "passage: "}
    save_sentence_transformers(root / "my-finetuned-model", dense=DIMS, prompts=prompts)
    quick(root / "my-finetuned-model", root / "my-model", precisions=("fp32", "int8"))
    quick(save_sentence_transformers(root / "plain"), root / "my-token-model", tokens=True)
    quick(save_classifier(root / "reranker"), root / "my-reranker")
    quick(save_causal_reranker(root / "causal-reranker"), root / "my-qwen3-reranker")
    quick(save_splade(root / "splade"), root / "my-splade")
    quick(save_multi_vector(root / "colbert"), root / "my-colbert")
    quick(save_inference_free(root / "inference-free"), root / "my-inference-free-model")
    lora = Made(root / "lora").queries_and_values()
    copied(lora.save(), lora.base / "medical")
    for name in ("asks", "answers"):
        beside = Made(root / name, base=root / "my-finetuned-model").queries_and_values()
        copied(beside.save(), root / "my-finetuned-model" / name)
    save_embedder(root / "jinaai" / "jina-embeddings-v3")
    small = save_transformers(root / "jinaai" / "jina-embeddings-v5-text-small", "qwen3")
    query = "layers.0.self_attn.q_proj"
    beside = Made(root / "retrieval", "qwen3", base=small).linear(query, 8, 1.0)
    copied(beside.save(target_modules=query.replace(".", r"\.")), small / "adapters" / "retrieval")
    as_v5(small, ["retrieval"])
    for name in ("base", "adapter"):
        (root / f"my-{name}").symlink_to(root / "lora" / name)
    (root / "my-splade-masked-lm").symlink_to(root / "splade")
    for name in ("big.txt", "texts.txt"):
        (root / name).write_text("a dog runs\nthe house is red\n\n")
    np.save(root / "ranges.npy", SAID["ranges"])
    (root / "corpus").mkdir()
    rows = [{"id": f"row {k}", "title": "a title", "text": text} for k, text in enumerate(SAID["texts"])]
    (root / "corpus" / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with sqlite3.connect(root / "notes.db") as connection:
        connection.execute("CREATE TABLE notes (id INTEGER, body TEXT)")
        connection.executemany("INSERT INTO notes VALUES (?, ?)", enumerate(SAID["texts"]))
    connection.close()
    words = ["embed", str(root / "my-model"), str(root / "corpus"), "--shards", str(root / "vectors"), "-q"]
    assert cli.main(words) == 0
    return root


def test_python_is_where_it_is_looked_for() -> None:
    assert sum(len(blocks(page, "python")) for page in CONTENTS) >= 14
    assert blocks("README.md", "python")
    for page, text in CONTENTS.items():
        fences = re.findall(r"^ *```(\w*)$", text, re.MULTILINE)
        assert set(fences) <= {"python", "sh", "sql", ""} | ({"js", "yaml"} if page == CLIENTS else set()), page


def answers(app: Any) -> bool:
    """Whether the mounted application gives vectors."""
    body = json.dumps({"input": ["a dog runs"]}).encode()
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/vectors/v1/embeddings", "query_string": b"", "headers": []}
    asyncio.run(app(scope, receive, send))
    found = json.loads(b"".join(message.get("body", b"") for message in sent))
    return len(found["data"][0]["embedding"]) == DIMS


@pytest.mark.parametrize(
    "page", [page for page in CONTENTS if blocks(page, "python") and page not in (CLIENTS, ENGINES)]
)
def test_every_block_of_python_runs_as_written(page: str, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the top of a page to its end, with nothing before."""
    monkeypatch.chdir(workspace)
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        script = compile(block, page, "exec")
        if GPU not in block and NETWORK not in block:
            exec(script, names)
    checks: dict[str, Callable[[], bool]] = {
        "README.md": lambda: names["vectors"].shape == (3, DIMS),
        "index.md": lambda: names["vectors"].shape == (3, DIMS),
        "run.md": lambda: (
            names["vector"].shape == names["one"].shape == names["other"].shape == (DIMS,)
            and len(names["encoded"].tokens) == len(names["parts"]) == 2
            and len(names["tokens"].offsets) == len(names["tokens"])
        ),
        "prompts-and-lengths.md": lambda: (
            np.array_equal(names["question"], names["named"])
            and np.array_equal(names["question"], names["own"])
            and names["model"].stats.truncated == 1
            and names["whole"].shape == (DIMS,)
        ),
        "server.md": lambda: answers(names["app"]),
        "int8.md": lambda: (names["model"].precision, names["model"].target) == ("int8", "cpu"),
        "stored-vectors.md": lambda: (
            names["bits"].shape == (3, 32) and names["codes"].shape == (3, DIMS) and names["codes"].dtype == np.int8
        ),
        "other-heads.md": lambda: names["best"].text in names["documents"] and len(names["weights"]) == 3,
        "export.md": lambda: names["model"].dim == DIMS,
        "from-sentence-transformers.md": lambda: (
            names["hits"][0]["corpus_id"] in (0, 1)
            and names["best"][0]["text"] in ("the house is red", "a dog runs")
            and len(names["words"]) == 3
        ),
        "from-fastembed.md": lambda: len(names["vectors"]) == 2 and callable(names["use_in_qdrant"]),
        "gpu.md": lambda: not names,
        "search.md": lambda: [hit.file for hit in names["hits"]] == ["walks.md"],
        "bulk.md": lambda: names["vectors"].shape == (3, DIMS),
        "deployment.md": lambda: names["model"].threads == 1 and callable(names["post_fork"]),
    }
    assert checks[page]()


@pytest.mark.parametrize("page", CONTENTS)
def test_the_blocks_that_open_a_model_need_nothing_before_them(
    page: str, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    for block in blocks(page, "python"):
        if "import EmbeddingModel" in block and GPU not in block and NETWORK not in block:
            exec(compile(block, page, "exec"), {})


def test_every_command_is_one_that_the_command_line_takes() -> None:
    found = [words for page in CONTENTS for words in commands(page)]
    assert {words[0] for words in found} == set(cli.COMMANDS)
    assert list(commands("README.md"))
    for words in found:
        cli.build_parser().parse_args(words)


def test_commands_and_options_in_the_text_are_there_too() -> None:
    """`fastembed-rt COMMAND` and `--option` in code between words, wherever they stand."""
    parser = cli.build_parser()
    choices = next(action for action in parser._actions if action.dest == "command").choices or {}
    known = {option for command in dict(choices).values() for option in command._option_string_actions}
    others = {
        "--dry-run",
        "--cpus",
        "--texts",
        "--dynamic",
        "--repeated",
        "--measure",
        "--quick",
        "--contenders",
        "--parts",
        "--minutes",
        "--shm-size",
        "--add-data",
        "--standalone",
        "--zip-include-packages",
        "--include-package-data",
    }  # of other programs
    for page, text in CONTENTS.items():
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
        for code in re.findall(r"`([^`\n]+)`", prose):
            command = re.match(r"fastembed-rt (\w+)", code)
            assert command is None or command[1] in cli.COMMANDS, (page, code)
            options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code))
            assert options <= known | others, (page, code)


WITHOUT_END = ("serve", "mcp", "bench", "doctor")  # or of this machine; `cache clear` is of the tests' own cache


def elsewhere(words: list[str], folder: Path) -> bool:
    """Whether a command is for another place than a folder of small models: a GPU, the hub, a store, a terminal."""
    absent = [word for word in words if word.startswith("./") and not (folder / word).exists()]
    return words[0] in (*WITHOUT_END, "push") or NETWORK in words[1] or bool({"--target", "--to"} & {*words} or absent)


def made(words: list[str]) -> str | None:
    """The name of what a command writes."""
    option = next((option for option in ("-o", "--shards") if option in words), None)
    return option and words[words.index(option) + 1]


EXPORTED: set[str] = set()  # of the pages before


@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("page", [page for page in CONTENTS if any(commands(page))])
def test_the_commands_of_a_page_do_what_it_says(
    page: str, workspace: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One after the other, in a folder that has what the page does not make. An export of several pages runs once."""
    monkeypatch.chdir(tmp_path)
    words_here = [words for words in commands(page) if not elsewhere(words, workspace)]
    own = {made(words) for words in words_here if " ".join(words) not in EXPORTED}
    for entry in workspace.iterdir():
        if entry.name not in own | {"notes"}:
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "walks.md").write_text(WALKS, encoding="utf-8")
    for words in words_here:
        if " ".join(words) in EXPORTED:
            continue
        capfd.readouterr()
        if words[0] == "export":
            EXPORTED.add(" ".join(words))
            words.append("--force")
        assert cli.main(words) == 0, words
        out = capfd.readouterr().out
        name = made(words) or ""
        if words[0] == "search":
            shown = [block for block in blocks(page, "") if re.match(HIT, block)]
            assert shown and re.match(HIT, out), out
        elif name.endswith((".npy", ".npz")):
            with np.load(name) if name.endswith(".npz") else contextlib.nullcontext(np.load(name)) as arrays:
                assert SHAPES[name](arrays), name
        elif name.endswith(".jsonl"):
            assert len(Path(name).read_text(encoding="utf-8").splitlines()) == 3


WALKS = "We go to the park.\n\nThe brown dog runs after the tram. The grey one watches.\n"
HIT = re.compile(r"-?\d\.\d{3}  walks\.md, line \d+\n    .*\*\*.+\*\*")
SHAPES: dict[str, Callable[[Any], bool]] = {  # of the files that pages have written
    "vectors.npy": lambda array: array.shape == (3, DIMS),
    "codes.npy": lambda array: array.shape == (3, DIMS) and array.dtype == np.int8,
    "tokens.npz": lambda arrays: len(arrays["offsets"]) == len(arrays["token_embeddings"]) == arrays["lengths"].sum(),
    "passages.npz": lambda arrays: arrays["token_embeddings"].shape == (arrays["lengths"].sum(), 8),
    "weights.npz": lambda arrays: arrays["shape"][0] == len(arrays["indptr"]) - 1 == 3,
}


def test_every_kind_of_command_that_ends_by_itself_runs_here(workspace: Path) -> None:
    found = {words[0] for page in CONTENTS for words in commands(page) if not elsewhere(words, workspace)}
    assert found == set(cli.COMMANDS) - {*WITHOUT_END, "push"}


def rows(page: str) -> Iterator[list[list[str]]]:
    """Tables of calls: rows of two pieces of code and a remark; the first one of each opens the models."""
    for table in re.findall(r"(?:^\|.*\|\n)+", CONTENTS[page], re.MULTILINE):
        cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[2:]]
        if cells[0][0].startswith("`model = "):
            yield cells


def code(cell: str) -> str | None:
    """What stands in a cell if it is code and nothing else."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    return found and found[1]


def opened(statement: str, names: dict[str, Any]) -> dict[str, Any]:
    """The names with `model`, which a statement opens."""
    made = dict(names)
    exec(statement, made)
    return made


def test_calls_of_sentence_transformers_give_the_same_here(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace)
    theirs: dict[str, Any] = {
        **SAID,
        "torch": torch,
        "SentenceTransformer": SentenceTransformer,
        "CrossEncoder": CrossEncoder,
        "SparseEncoder": SparseEncoder,
        "MultiVectorEncoder": MultiVectorEncoder,
        "quantize_embeddings": quantize_embeddings,
    }
    compared = 0
    for table in rows("from-sentence-transformers.md"):
        left, right = code(table[0][0]), code(table[0][1])
        assert left
        assert right
        reference, model = opened(left, theirs), opened(right, {**SAID, **classes()})
        for row in table[1:]:
            their_call, our_call = code(row[0]), code(row[1])
            assert their_call, row
            assert our_call, row
            alike(eval(our_call, model), eval(their_call, reference), our_call)
            compared += 1
    assert compared >= 20


def classes() -> dict[str, Any]:
    return {name: getattr(fastembed_rt, name) for name in fastembed_rt.__all__}


def alike(ours: Any, theirs: Any, what: str) -> None:
    """Lists entry by entry, numbers within the bounds of a reference, codes within a step, all else equal."""
    if isinstance(theirs, torch.Tensor):
        theirs = (theirs.to_dense() if theirs.is_sparse else theirs).detach().numpy()
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs), what
        for entry, other in zip(ours, theirs, strict=True):
            alike(entry, other, what)
    elif isinstance(theirs, np.ndarray) and theirs.dtype == np.float32:
        assert np.shape(ours) == theirs.shape, what
        close(np.asarray(ours), theirs, REFERENCE)
    elif isinstance(theirs, np.ndarray):
        # A number on the border of two steps falls on either side.
        assert ours.dtype == theirs.dtype, what
        assert ours.shape == theirs.shape, what
        assert np.mean(ours != theirs) < 0.05, what
        if "int8" in what:
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1, what
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4), what
    elif theirs is None and "decode" in what:
        assert isinstance(ours, str), what  # a row of the random word table that its tokenizer has no word for
    else:
        assert ours == theirs, what


def test_calls_beside_those_of_fastembed_run_and_are_what_is_said(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fastembed is not here; ours are held to what the page says of their results, theirs have to be Python."""
    monkeypatch.chdir(workspace)
    ran = 0
    for table in rows("from-fastembed.md"):
        model: dict[str, Any] = {}
        for row in table:
            their_call, our_call = code(row[0]), code(row[1])
            assert our_call, row
            if their_call:
                ast.parse(their_call)
            if our_call.startswith("model = "):
                model = opened(our_call, {**SAID, **classes()})
                continue
            result = eval(our_call, model)
            if "(n, dim)" in row[2]:
                assert result.shape == (3, DIMS)
            elif "(dim,)" in row[2]:
                assert all(vector.shape == (DIMS,) for vector in result)
            elif "(tokens, dim)" in row[2]:
                assert all(vectors.ndim == 2 for vectors in result)
            elif ".indices" in row[2]:
                assert all(vector.as_dict().keys() == set(vector.indices.tolist()) for vector in result)
            ran += 1
    assert ran >= 14


def test_every_environment_variable_of_ours_has_a_row() -> None:
    sources = [path for name in ("fastembed_rt", "export") for path in (ROOT / name).rglob("*.[pc]*")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources if path.suffix in (".py", ".c"))
    rows = re.findall(r"^\| `(FASTEMBED_RT_\w+)` \|", CONTENTS["deployment.md"], re.MULTILINE)
    assert set(rows) == set(re.findall(r'"(FASTEMBED_RT_\w+)"', text))


def anchors(page: Path) -> set[str]:
    """The names of a page's headings in links."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", CONTENTS[page.name]):
        if link.startswith(f"{REPOSITORY}/blob/main/"):
            place, _, anchor = link.removeprefix(f"{REPOSITORY}/blob/main/").partition("#")
            target = ROOT / place
        elif link.startswith("https://"):
            continue
        else:
            place, _, anchor = link.partition("#")
            target = page.parent / place if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs" / "integrations").glob("*.md"))], ids=lambda p: p.name)
def test_what_a_page_names_of_the_project_is_there(page: Path) -> None:
    """Files, modules that are run, targets of make, extras."""
    text = page.read_text(encoding="utf-8")
    for place in re.findall(r"\b(?:tests|benchmarks|deploy|docs|fastembed_rt|export)/[\w./-]+\.\w+", text):
        assert (ROOT / place).exists(), place
    for module in re.findall(r"python -m ((?:benchmarks|fastembed_rt)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= {*targets}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = re.findall(r"fastembed-rt\[([\w,-]+)\]", text)
    assert {extra for names in named for extra in names.split(",")} <= {*extras}


def test_every_page_is_in_the_menu_and_readme_leads_to_it() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES[1:]:
        assert f": {page.name}\n" in menu, page.name
        assert f"(docs/{page.name})" in CONTENTS["README.md"], page.name
    assert set(re.findall(r": ([\w-]+\.md)$", menu, re.MULTILINE)) == {page.name for page in PAGES[1:]}


def test_the_api_page_names_every_class_and_every_error_with_its_exit_code() -> None:
    page = CONTENTS["api.md"]
    shown = {line.rpartition(".")[2] for line in re.findall(r"^::: (fastembed_rt\S+)$", page, re.MULTILINE)}
    assert set(fastembed_rt.__all__) - {"FastembedRtError", "__version__"} <= shown
    said = {
        name: int(row[1])
        for row in re.finditer(r"^\| (\d) \| (.+) \|$", page, re.MULTILINE)
        for name in re.findall(r"\w+", row[2])
    }
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FastembedRtError)]
    assert said == {kind.__name__: kind.exit_code for kind in kinds}


def test_the_architecture_page_has_the_tables_of_the_layers() -> None:
    """As tests/packaging/test_layers.py has them; the program's entry points are no rows."""
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    said: dict[str, list[dict[str, set[str]]]] = {"pages": [], "code": []}
    for table in re.findall(r"^\| package \|.*\n(?:^\|.*\|\n)+", CONTENTS["architecture.md"], re.MULTILINE):
        found = {}
        for line in table.splitlines()[2:]:
            names, imported, _ = line[1:-1].split("|")
            found.update({name: set(re.findall(r"\w+", imported)) for name in re.findall(r"`(\w+)`", names)})
        said["pages"].append(found)
    for package in ("fastembed_rt", "fastembed_rt_export"):
        text = re.search(rf"^{package}:\n\n((?:    .+\n)+)", contributing, re.MULTILINE)
        assert text
        rows = re.sub(r"\n {8,}", " ", text[1]).splitlines()  # a long row goes on further in
        parts = [line.strip().partition(":") for line in rows]
        found = {name: set(others.split()) for names, _, others in parts for name in names.split()}
        said["code"].append({name: others for name, others in found.items() if not name.startswith("__")})
    assert said["pages"] == said["code"]
