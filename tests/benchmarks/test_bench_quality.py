"""Task scores beside scipy, scikit-learn and sentence-transformers' own evaluators; what is a task and what is not."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from fake_hub import FakeHub, running_hub
from fake_runs import Run
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from benchmarks.data import scores, tasks
from benchmarks.errors import BenchmarkError
from benchmarks.precision import quality
from benchmarks.report.records import REFERENCE

WORDS = "cat dog house river runs sleeps under over tree red blue new light night day machine vector text".split()
Vectors = npt.NDArray[np.float32]
SICK = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
SICK_FULL = "pair_ID\tsentence_A\tsentence_B\tentailment_label\trelatedness_score\tentailment_AB\tSemEval_set\n"


def encoder(dim: int = 16) -> Callable[[list[str]], Vectors]:
    """A vector for each text: random, and the same each time."""

    def encode(texts: list[str]) -> Vectors:
        seeds = [np.frombuffer(text.encode(), np.uint8) for text in texts]
        return np.stack([np.random.default_rng(seed.tolist()).normal(size=dim) for seed in seeds]).astype(np.float32)

    return encode


def beir(
    folder: Path, seed: int = 1, qrels: str = "qrels/test.tsv"
) -> tuple[list[Any], list[Any], npt.NDArray[np.int64]]:
    """Eight queries with up to a few relevant documents of thirty; the last has none."""
    random = np.random.default_rng(seed)
    # Words of the small checkpoints' vocabulary: two texts of unknown words would have the same vector.
    texts = [" ".join(random.choice(WORDS, 9)) for _ in range(38)]
    corpus = [{"_id": f"d{k}", "title": "the old city" * (k % 2), "text": texts[k]} for k in range(30)]
    queries = [{"_id": f"q{k}", "text": texts[30 + k]} for k in range(8)]
    (folder / qrels).parent.mkdir(parents=True, exist_ok=True)
    for name, entries in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, entries)) + "\n", encoding="utf-8")
    judged = (random.random((8, 30)) < 0.2).astype(np.int64)
    judged[:, 0] = 1
    judged[7] = 0
    lines = [f"q{q}\td{d}\t{judged[q, d]}" for q in range(8) for d in range(30)]
    (folder / qrels).write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n", encoding="utf-8")
    return corpus, queries, judged


def test_spearman_is_that_of_scipy_ties_included() -> None:
    random = np.random.default_rng(0)
    left, right = random.integers(0, 9, 200), random.normal(size=200)
    assert scores.spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)


@pytest.mark.parametrize("qrels", ["qrels/test.tsv", "qrels/dev.tsv", "qrels.tsv"])
def test_retrieval_is_that_of_scikit_learn(tmp_path: Path, qrels: str) -> None:
    corpus, queries, judged = beir(tmp_path, qrels=qrels)
    encode = encoder()
    task = tasks.retrieval("mini", tmp_path.joinpath)
    assert task.metrics == ("ndcg@10", "recall@10")
    assert len(task.texts) == 7 + 30  # a query without anything relevant is not asked
    found = task.scores(encode(task.texts))

    documents = encode([f"{entry['title']} {entry['text']}".strip() for entry in corpus])
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    similar = encode([entry["text"] for entry in queries[:7]]) @ documents.T
    assert found["ndcg@10"] == pytest.approx(100 * ndcg_score(judged[:7], similar, k=10), abs=1e-4)
    best = np.argsort(-similar, axis=1)[:, :10]
    recalled = [judged[k, best[k]].sum() / judged[k].sum() for k in range(7)]
    assert found["recall@10"] == pytest.approx(100 * np.mean(recalled))


def test_gains_count_as_they_are_and_a_document_never_answers_itself() -> None:
    documents = np.array([[1, 0], [0.9, 0.1], [0.5, 0.5], [0, 1]], dtype=np.float32)
    judged = {"a": {"b": 1, "c": 3}}
    found = scores.retrieval(documents[:1], documents, ["a"], ["a", "b", "c", "d"], judged)
    # Without "a" itself: b (1), c (3), d (0); ideal: 3, 1.
    assert found["ndcg@10"] == pytest.approx(100 * (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))
    assert found["recall@10"] == 100


def test_the_scores_are_those_of_sentence_transformers_evaluators(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from checkpoints import save_sentence_transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import (
        EmbeddingSimilarityEvaluator,
        InformationRetrievalEvaluator,
    )

    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    model = SentenceTransformer(str(save_sentence_transformers(tmp_path / "checkpoint")), device="cpu")
    corpus, queries, judged = beir(tmp_path / "retrieval")
    task = tasks.retrieval("mini", (tmp_path / "retrieval").joinpath)
    found = task.scores(model.encode(task.texts))
    evaluator = InformationRetrievalEvaluator(
        {entry["_id"]: entry["text"] for entry in queries},
        {entry["_id"]: f"{entry['title']} {entry['text']}".strip() for entry in corpus},
        {f"q{q}": {f"d{d}" for d in range(30) if judged[q, d]} for q in range(7)},
        write_csv=False,
    )
    theirs = evaluator(model)
    assert found["ndcg@10"] == pytest.approx(100 * theirs["cosine_ndcg@10"], abs=1e-3)
    assert found["recall@10"] == pytest.approx(100 * theirs["cosine_recall@10"], abs=1e-3)

    pairs = [("the cat sleeps", "a dog runs", 1.5), ("red house", "the red house", 4.5), ("old city", "river", 0.5)]
    file = tmp_path / "pairs.csv"
    file.write_text("".join(f"{left},{right},{score}\n" for left, right, score in pairs))
    sts = tasks.stsb("pairs", file)
    similarity = EmbeddingSimilarityEvaluator(*map(list, zip(*pairs, strict=True)), write_csv=False)
    expected = 100 * similarity(model)["spearman_cosine"]
    assert sts.scores(model.encode(sts.texts))["spearman"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "content", "pairs"),
    [
        (
            "SICK_test_annotated.txt",
            SICK + '1\tA "man\tB\t4.5\tNEUTRAL\n2\tC\tD\t3\tNEUTRAL\n',
            ['A "man', "C", "B", "D"],
        ),
        (
            "SICK.txt",
            SICK_FULL + "1\tA\tB\tN\t4\tx\tTRAIN\n2\tC\tD\tN\t3\tx\tTEST\n3\tE\tF\tN\t2\tx\tTEST\n",
            list("CEDF"),
        ),
    ],
)
def test_sick_is_read_as_it_was_published(tmp_path: Path, name: str, content: str, pairs: list[str]) -> None:
    (tmp_path / "sick").mkdir()
    (tmp_path / "sick" / name).write_text(content, encoding="utf-8")
    found, skipped = tasks.find(tmp_path, [], [])
    assert [(task.name, task.texts) for task in found] == [("SICK test", pairs)]
    assert skipped == [("retrieval", "no retrieval/<name>/ in the data folder")]


LINES = [("A man — here", "B\u2028C", 4.5), ("D", "E", 1), ("F", "G", 3)]


def pair_lines(rows: list[tuple[str, str, float]] = LINES) -> bytes:
    """MTEB's layout, in which a text may hold what splits lines elsewhere."""
    entries = [{"split": "test", "sentence1": one, "sentence2": two, "score": score} for one, two, score in rows]
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries).encode()


@pytest.mark.parametrize("name", ["test.jsonl", "test.jsonl.gz"])
def test_sentence_pairs_are_read_in_mtebs_layout(tmp_path: Path, name: str) -> None:
    (tmp_path / "sts" / "sickr").mkdir(parents=True)
    packed = gzip.compress(pair_lines()) if name.endswith(".gz") else pair_lines()
    (tmp_path / "sts" / "sickr" / name).write_bytes(packed)
    (found,), _ = tasks.find(tmp_path, [], [])
    assert (found.name, found.metrics) == ("sickr", ("spearman",))
    assert found.texts == ["A man — here", "D", "F", "B\u2028C", "E", "G"]
    vectors = encoder()(found.texts)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wanted = 100 * spearmanr((unit[:3] * unit[3:]).sum(axis=1), [4.5, 1, 3]).statistic
    assert found.scores(vectors)["spearman"] == pytest.approx(wanted)


def test_what_is_not_there_is_skipped_with_the_reason(tmp_path: Path) -> None:
    found, skipped = tasks.find(tmp_path, ["en", "de"], [])
    assert found == []
    assert skipped == [
        ("STS-B dev (en)", "no stsb/stsb-en-dev.csv in the data folder"),
        ("STS-B dev (de)", "no stsb/stsb-de-dev.csv in the data folder"),
        ("SICK test", "no sick/SICK_test_annotated.txt or sick/SICK.txt in the data folder"),
        ("retrieval", "no retrieval/<name>/ in the data folder"),
    ]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("stsb/stsb-en-dev.csv", "a,b,1\nc,d\n", "row 2 is not two sentences and a score"),
        ("stsb/stsb-en-dev.csv", "a,b,1\nc,d,1\n", "no pairs with different scores"),
        ("sick/SICK.txt", "a\tb\n1\t2\n", "no column sentence_A, sentence_B, relatedness_score"),
        ("sick/SICK.txt", "", "no column sentence_A"),
        ("retrieval/mini/corpus.jsonl", "{", "corpus.jsonl is not one JSON object a line"),
        ("retrieval/mini/queries.jsonl", '{"_id": "q"}', "queries.jsonl needs _id and text in every line"),
        ("retrieval/mini/queries.jsonl", "", "queries.jsonl 0 judged queries"),
        ("retrieval/mini/qrels/test.tsv", "head\nq0\td0\n", "has a line that is not query, document, score"),
        ("retrieval/mini/qrels/test.tsv", None, "none of qrels/test.tsv, qrels/dev.tsv"),
        ("retrieval/mini/corpus.jsonl", None, "corpus.jsonl is missing"),
        ("sts/mini/other.jsonl", "{}", "neither corpus.jsonl (BEIR's layout) nor test.jsonl.gz or test.jsonl"),
        ("sts/mini/test.jsonl.gz", "not packed", "test.jsonl.gz is not one JSON object a line"),
        ("sts/mini/test.jsonl", '{"sentence1": "a", "score": 1}', "needs sentence1, sentence2 and score in every line"),
        ("sts/mini/test.jsonl", '{"sentence1": "", "sentence2": "", "score": "x"}', "row 1 is not two sentences"),
    ],
)
def test_a_file_that_is_no_task_is_one_line(tmp_path: Path, file: str, content: str | None, says: str) -> None:
    beir(tmp_path / "retrieval" / "mini")
    path = tmp_path / file
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    with pytest.raises(BenchmarkError) as caught:
        tasks.find(tmp_path, ["en"], [])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub of one data set, and an empty cache."""
    import huggingface_hub.constants

    with running_hub() as served:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", served.url)
        monkeypatch.setattr(
            huggingface_hub.constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            served.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        beir(tmp_path / "mini")
        names = ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")
        served.add("datasets/acme/mini", {name: (tmp_path / "mini" / name).read_bytes() for name in names})
        yield served


def test_a_task_of_the_hub_is_the_one_in_its_files(hub: FakeHub, tmp_path: Path) -> None:
    (found,), skipped = tasks.find(tmp_path / "nothing", [], ["acme/mini", "acme/none"])
    local = tasks.retrieval("local", (tmp_path / "mini").joinpath)
    assert found.name == "acme/mini"
    assert found.texts == local.texts
    vectors = encoder()(found.texts)
    assert found.scores(vectors) == local.scores(vectors)
    assert [name for name, _ in skipped] == ["SICK test", "acme/none"]
    assert "acme/none" in skipped[1][1]
    asked = [request.path for request in hub.requests if "acme/" in request.path]  # the client asks for more of its own
    assert asked
    assert all(path.startswith(("/datasets/", "/api/datasets/")) for path in asked)


def test_sentence_pairs_of_the_hub_are_a_task_too(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("datasets/acme/sickr", {"test.jsonl.gz": gzip.compress(pair_lines()), "README.md": b"pairs"})
    hub.add("datasets/acme/pictures", {"README.md": b"nothing to score"})
    found, _ = tasks.find(tmp_path / "nothing", [], ["acme/sickr", "acme/mini"])
    assert [(task.name, task.metrics[0]) for task in found] == [("acme/sickr", "spearman"), ("acme/mini", "ndcg@10")]
    assert len(found[0].texts) == 6
    with pytest.raises(BenchmarkError, match=r"acme/pictures: neither corpus.jsonl .* is there"):
        tasks.find(tmp_path / "nothing", [], ["acme/pictures"])


def test_a_file_that_is_no_task_ends_a_run_before_it_begins(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "stsb").mkdir()
    (tmp_path / "data" / "stsb" / "stsb-en-dev.csv").write_text("a,b\n")
    code, record = run({}, "--parts", "throughput,quality")
    assert (code, record) == (2, {})
    assert "row 1 is not two sentences and a score" in capsys.readouterr().err
    assert run({}, "--parts", "throughput", "--rounds", "1")[0] == 0  # who does not ask for tasks is not asked for them


def test_the_runner_scores_the_reference_and_this_project(run: Run, tmp_path: Path) -> None:
    beir(tmp_path / "data" / "retrieval" / "mini")
    behaviours = {
        "ours": {"ours": "yes"},
        "other": {},
        "asked": {},
        "dies": {"ours": "yes", "behaviour": "crash", "good_calls": "83"},
    }
    code, record = run(behaviours, "--parts", "quality")
    assert code == 0
    named = [(task["name"], task["metric"], sorted(task["contenders"])) for task in record["quality"]["tasks"]]
    # The fake table of rows answers for every name, so all rows count as asked for; who died is missing.
    everybody = sorted([REFERENCE, "asked", "other", "ours"])
    assert named == [("mini", "ndcg@10", everybody), ("mini", "recall@10", everybody)]
    assert record["quality"]["skipped"][0]["name"] == "STS-B dev (en)"
    assert "exit code 3" in record["contenders"]["dies"]["failed_parts"]["quality"]


def test_every_precision_of_a_directory_is_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from checkpoints import save_sentence_transformers

    from fastembed_rt_export.pipeline import ExportOptions, export

    checkpoint = save_sentence_transformers(tmp_path / "checkpoint")
    export(str(checkpoint), ExportOptions(output=tmp_path / "model", verify=False))
    beir(tmp_path / "retrieval" / "mini")
    (tmp_path / "texts").mkdir()
    words = [str(tmp_path / "model"), "--data", str(tmp_path)]
    assert quality.main([*words, "--reference", str(checkpoint)]) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in printed if line.startswith("|")}
    assert rows["fastembed-rt fp32"] == rows["sentence-transformers"]
    assert "skipped: SICK test: no sick/" in "\n".join(printed)
    assert quality.main([str(tmp_path / "nowhere"), "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert quality.main([str(tmp_path / "model"), "--data", str(tmp_path / "none")]) == 2
    assert "none does not exist; pass --data FOLDER" in capsys.readouterr().err
    assert quality.main([str(tmp_path / "model"), "--data", str(tmp_path / "texts")]) == 2
    assert "error: no task to score: STS-B dev (en): no stsb/" in capsys.readouterr().err
