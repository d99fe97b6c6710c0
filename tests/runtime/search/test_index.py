"""An index of a folder: what a build encodes, keeps and forgets; answers held to vectors of sentence-transformers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastembed_rt import EmbeddingModel, Reranker
from fastembed_rt.errors import InvalidInputError, ModelFormatError
from fastembed_rt.search import Built, Index, build, building, store
from fastembed_rt.search.chunks import Chunker, sentences
from fastembed_rt.search.codes import best, coded, nearest, scores
from fastembed_rt.system.locks import locked

FILES = {
    "dogs.txt": "a dog runs quickly under the old tree! the cat sleeps.\n\nthe river , the light",
    "deep/houses.md": "# the house\n\nthe house is red . the old city",
    "code.py": "def run():\n    return 'a dog'\n",
    "page.html": "<title>new</title><p>the <b>cat</b> sleeps<script>var no = 1</script></p><p>the light</p>",
    "empty.txt": "",
}
QUESTION = "which dog runs ?"
PROMPTS = {"query": "query : ", "document": "passage : "}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "notes"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def make(folder: Path, model: EmbeddingModel, model_dir: Path) -> Callable[..., Built]:
    def make(**options: Any) -> Built:
        return build(folder, model, opened_from=str(model_dir), **options)

    return make


def restored(codes: Any, scales: Any) -> Any:
    return codes.astype(np.float32) * scales[:, None]


def table(folder: Path) -> Any:
    return pq.read_table(store.place(folder))


def test_chunks_have_their_text_and_place_and_the_vectors_of_documents(
    folder: Path, make: Callable[..., Built], reference: Any
) -> None:
    done = make()
    assert done.added == sorted(set(FILES) - {"empty.txt"})
    assert done.skipped == {"empty.txt": "no text in it"}
    rows = table(folder).to_pylist()
    assert done.chunks == done.encoded == len(rows) > len(FILES) - 1
    for row in rows:
        if row["file"] != "page.html":
            text = FILES[row["file"]]
            assert text[row["start"] : row["stop"]] == row["text"]
            assert row["line"] == f"line {text.count(chr(10), 0, row['start']) + 1}"
    assert [row["text"] for row in rows if row["file"] == "page.html"] == ["new\n\nthe cat sleeps\n\nthe light"]
    codes = np.array([np.frombuffer(row["code"], np.int8) for row in rows])
    vectors = restored(codes, np.array([row["scale"] for row in rows], np.float32))
    wanted = reference.encode([PROMPTS["document"] + row["text"] for row in rows])
    assert np.abs(vectors - wanted).max() <= 0.51 * np.abs(wanted).max() / 127
    assert min(np.sum(vectors * wanted, axis=1) / np.linalg.norm(vectors, axis=1)) > 0.9995


def test_hits_are_the_nearest_chunks_with_the_nearest_sentence(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel, reference: Any
) -> None:
    make()
    rows = table(folder).to_pylist()
    question = reference.encode(PROMPTS["query"] + QUESTION)
    cosines = reference.encode([PROMPTS["document"] + row["text"] for row in rows]) @ question
    with Index(folder, model) as index:
        assert len(index) == len(rows)
        hits = index.search(QUESTION, len(rows))
        np.testing.assert_allclose([hit.score for hit in hits], sorted(cosines, reverse=True), rtol=0, atol=5e-3)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            (row,) = [r for r in rows if (r["file"], r["start"]) == (hit.file, hit.start)]
            assert (hit.text, hit.stop) == (row["text"], row["stop"])
            if hit.file.endswith(("txt", "md", "py")):  # and as they are in the file
                before = (folder / hit.file).read_bytes().decode()[: hit.highlight[0]]
                assert hit.line == f"line {before.count(chr(10)) + 1}"
            else:
                assert hit.line == f"character {hit.highlight[0]}"
            start, stop = (place - hit.start for place in hit.highlight)
            assert 0 <= start < stop <= len(hit.text)
        first = next(hit for hit in hits if hit.file == "dogs.txt" and "tree" in hit.text)
        parts = ["a dog runs quickly under the old tree!", "the cat sleeps."]
        near = parts[int(np.argmax(reference.encode([PROMPTS["document"] + part for part in parts]) @ question))]
        assert FILES["dogs.txt"][slice(*first.highlight)] == near
        assert index.search(QUESTION, 2) == hits[:2]
        with pytest.raises(InvalidInputError, match="1 or more"):
            index.search(QUESTION, 0)


def test_a_hits_line_is_that_of_its_sentence(
    folder: Path, model: EmbeddingModel, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for old in folder.rglob("*.*"):
        old.unlink()
    (folder / "lines.txt").write_text("\n\nthe river .\nlight .\na dog runs .", encoding="utf-8")
    (folder / "page.html").write_text("<p>the river</p><p>a dog runs</p>", encoding="utf-8")
    build(folder, model, opened_from=str(model_dir))
    monkeypatch.setattr("fastembed_rt.search.index.sentences", lambda text: sentences(text)[-1:])
    with Index(folder, model) as index:
        assert {hit.line for hit in index.search("a dog", 2)} == {"line 5", "character 11"}
        assert {hit.line for hit in index.search("a dog", 2, highlight=False)} == {"line 3", "character 0"}


def test_a_folder_is_named_by_a_str_too(
    folder: Path, model: EmbeddingModel, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    built = build("notes", model, opened_from=str(model_dir))
    assert set(built.added) == set(FILES) - {"empty.txt"}
    with Index("notes", model) as index, Index(folder, model) as same:
        assert index.search(QUESTION) == same.search(QUESTION) != []
        assert not index.is_stale("dogs.txt")


def test_only_what_is_new_is_encoded(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel, tmp_path: Path
) -> None:
    make()
    before = store.place(folder).stat()
    same = make()
    assert (same.kept, same.encoded, same.added, same.changed, same.removed) == (len(FILES) - 1, 0, [], [], [])
    assert store.place(folder).stat().st_mtime_ns == before.st_mtime_ns
    (folder / "dogs.txt").write_text("new light", encoding="utf-8")
    (folder / "code.py").unlink()
    (folder / "deep" / "houses.md").rename(folder / "moved.md")
    (folder / "more.txt").write_text("the old house", encoding="utf-8")
    os.utime(folder / "page.html")
    done = make()
    assert (done.added, done.changed) == (["moved.md", "more.txt"], ["dogs.txt"])
    assert (done.removed, done.kept, done.encoded) == (["code.py", "deep/houses.md"], 1, 2)
    grown = table(folder)
    make(rebuild=True)
    assert table(folder).equals(grown)  # as if it had been built at once, to the bit
    with Index(folder, model) as index:
        assert set(index.files) == {"dogs.txt", "empty.txt", "moved.md", "more.txt", "page.html"}
        assert not index.is_stale("dogs.txt")
        (folder / "dogs.txt").write_text("other", encoding="utf-8")
        (folder / "more.txt").unlink()
        assert index.is_stale("dogs.txt")
        assert index.is_stale("more.txt")


def test_files_without_a_text_are_named_and_others_left_out(
    folder: Path, make: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    (folder / "dogs.txt").write_bytes(b"a dog \xff")
    (folder / "some.pdf").write_bytes(b"%PDF-1.4 of no kind")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.txt").write_text("secret")
    (folder / ".env.txt").write_text("secret")
    (folder / "image.png").write_bytes(b"\x89PNG")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    monkeypatch.setitem(sys.modules, "pypdf", None)
    done = make()
    assert done.skipped == {
        "dogs.txt": "not UTF-8 (byte 6)",
        "empty.txt": "no text in it",
        "some.pdf": "PDF needs the package pypdf: pip install 'fastembed-rt[pdf]'",
    }
    assert (done.added, done.removed) == ([], ["dogs.txt"])
    assert set(table(folder).column("file").to_pylist()) == set(FILES) - {"dogs.txt", "empty.txt"}


def test_half_a_surrogate_pair_of_a_pdf_is_replaced(
    folder: Path, make: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = ["a dog \ud83d runs", "the \udc15\ud83d\udc15 sleeps \ud83d"]

    class Page:
        def __init__(self, text: str) -> None:
            self.extract_text = lambda: text

    reading = types.SimpleNamespace(PdfReader=lambda stream: types.SimpleNamespace(pages=[*map(Page, pages)]))
    monkeypatch.setitem(sys.modules, "pypdf", reading)
    (folder / "some.pdf").write_bytes(b"%PDF-1.4")
    assert "some.pdf" in make().added
    found = [row["text"] for row in table(folder).to_pylist() if row["file"] == "some.pdf"]
    assert found == ["a dog \ufffd runs", "the \ufffd\N{DOG} sleeps \ufffd"]


@pytest.mark.parametrize("where", ["cutting", "encoding"])
def test_a_file_that_the_model_does_not_take_is_named_and_no_other_left_out(
    folder: Path, larger: EmbeddingModel, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "dogs.txt").write_text("a dog runs .", encoding="utf-8")
    build(folder, larger, opened_from="larger")
    if where == "encoding":  # as a token that comes of a cut alone
        monkeypatch.setattr(Chunker, "__call__", lambda self, text, *, code=False: [(0, len(text))] if text else [])
    (folder / "dogs.txt").write_text("a dog word250 runs .", encoding="utf-8")
    (folder / "new.txt").write_text("the new light", encoding="utf-8")
    for again in (False, True):
        done = build(folder, larger, opened_from="larger")
        assert done.skipped["dogs.txt"].startswith("has the token 'word250' (id 351), and the model knows 300 tokens: ")
        assert (done.added, done.removed) == (([], []) if again else (["new.txt"], ["dogs.txt"]))
        assert set(table(folder).column("file").to_pylist()) == {*FILES, "new.txt"} - {"dogs.txt", "empty.txt"}
    with Index(folder, larger) as index:
        assert index.search(QUESTION, 1)


def test_a_model_that_is_closed_leaves_no_file_out(folder: Path, model_dir: Path) -> None:
    with EmbeddingModel(model_dir, threads=1) as own:
        build(folder, own, opened_from=str(model_dir))
        before = table(folder)
        (folder / "new.txt").write_text("the new light", encoding="utf-8")
        encode = own.encode_document

        def closed(*given: Any, **options: Any) -> Any:
            own.close()
            return encode(*given, **options)

        own.__dict__["encode_document"] = closed
        with pytest.raises(InvalidInputError, match="the model is closed"):
            build(folder, own, opened_from=str(model_dir))
    assert table(folder).equals(before)


def test_a_file_that_loses_its_text_and_one_that_gets_some(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel
) -> None:
    make()
    (folder / "dogs.txt").write_text(" \n", encoding="utf-8")
    (folder / "blank.html").write_text("<p> </p>", encoding="utf-8")
    done = make()
    assert done.skipped == dict.fromkeys(("blank.html", "dogs.txt", "empty.txt"), "no text in it")
    assert (done.added, done.changed, done.removed) == ([], [], ["dogs.txt"])
    before = store.place(folder).stat().st_mtime_ns
    assert make().skipped == done.skipped  # named each time, and nothing is written for it
    assert store.place(folder).stat().st_mtime_ns == before
    (folder / "empty.txt").write_text("a dog", encoding="utf-8")
    assert make().added == ["empty.txt"]
    with Index(folder, model) as index:
        assert {hit.file for hit in index.search("a dog", 99)} == {
            "code.py",
            "deep/houses.md",
            "empty.txt",
            "page.html",
        }


def test_chunks_by_default_are_what_a_model_takes_also_where_an_index_has_longer_ones(
    folder: Path, make: Callable[..., Built], model_dir: Path
) -> None:
    make()
    with EmbeddingModel(model_dir, max_length=12, threads=1) as shorter:
        for call in (
            lambda: build(folder, shorter, opened_from=str(model_dir)),
            lambda: Index(folder, shorter),
        ):
            with pytest.raises(
                InvalidInputError, match="take the model of the index, or build it again with --rebuild"
            ):
                call()
        with pytest.raises(InvalidInputError, match=r"13 tokens \(--chunk-tokens\) are longer than .* takes, 12"):
            build(folder, shorter, opened_from=str(model_dir), chunk_tokens=13, rebuild=True)
        build(folder, shorter, opened_from=str(model_dir), rebuild=True)
        with Index(folder, shorter) as index:
            assert index.settings.chunk_tokens == 12


def test_a_question_without_a_word(folder: Path, make: Callable[..., Built], model: EmbeddingModel) -> None:
    make()
    with Index(folder, model) as index:
        for question in ("", " \n"):
            with pytest.raises(InvalidInputError, match="the query is empty"):
                index.search(question)


def test_a_model_of_another_fingerprint_is_refused_by_name(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel, model_dir: Path
) -> None:
    make()
    before = store.place(folder).read_bytes()
    with EmbeddingModel(model_dir, prompts={"query": "other: "}, threads=1) as other:
        for call in (lambda: build(folder, other, opened_from=str(model_dir)), lambda: Index(folder, other)):
            with pytest.raises(
                InvalidInputError, match=r"index.parquet has vectors of .*checkpoint .*this model is"
            ) as told:
                call()
            assert "noprompt" in str(told.value)
            assert "--rebuild" in str(told.value)
    with pytest.raises(InvalidInputError, match="has chunks of 16 tokens, not 12"):
        make(chunk_tokens=12)
    with pytest.raises(InvalidInputError, match="longer than what the model takes, 16"):
        make(chunk_tokens=17, rebuild=True)
    assert store.place(folder).read_bytes() == before
    old = len(table(folder))
    assert make(chunk_tokens=12, rebuild=True).chunks > old
    assert make().encoded == 0  # the index's own number, where none is given


def test_a_damaged_index_says_so(folder: Path, make: Callable[..., Built], model: EmbeddingModel) -> None:
    make()
    path = store.place(folder)
    whole = path.read_bytes()
    place = whole.index(bytes(table(folder).column("code").to_pylist()[0]))
    path.write_bytes(whole[:place] + b"\x01\x02\x03\x04" + whole[place + 4 :])
    with pytest.raises(ModelFormatError, match=r"is damaged or no index .*--rebuild"):
        Index(folder, model)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFormatError, match="is damaged or no index"):
        make()
    make(rebuild=True)
    assert path.read_bytes() == whole


def test_one_build_at_a_time(folder: Path, make: Callable[..., Built]) -> None:
    make()
    with (
        locked(store.place(folder).with_name(store.LOCK)),
        pytest.raises(InvalidInputError, match="another process is building the index"),
    ):
        make()


def test_who_is_killed_leaves_the_old_index_or_a_part_that_the_next_build_finishes(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import sys, time
from pathlib import Path
from fastembed_rt import EmbeddingModel
from fastembed_rt.search import build, building, store
building.TOGETHER, building.COMMIT = 1, 0
write, count = store.write, 0
def slow(path, contents):
    global count
    count += 1
    if count == 3:
        real = Path.replace
        def stop(self, target):
            print("ready", flush=True)
            time.sleep(60)
        Path.replace = stop
    write(path, contents)
store.write = slow
build(Path(sys.argv[1]), EmbeddingModel(sys.argv[2], threads=1), opened_from=sys.argv[2])
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(folder), str(model_dir)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    place = store.place(folder)
    assert len(list(place.parent.glob("*.tmp"))) == 1
    with Index(folder, model) as index:
        assert 0 < len(index.files) < len(FILES)
        part = set(index.files)
    done = make()
    assert set(done.added) == set(FILES) - part - {"empty.txt"}
    assert not list(place.parent.glob("*.tmp"))
    grown = table(folder)
    make(rebuild=True)
    assert table(folder).equals(grown)


def test_a_reranker_orders_the_best_again(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel, tmp_path: Path
) -> None:
    from cross_encoders import save_cross_encoder
    from exports import quick

    quick(save_cross_encoder(tmp_path / "ranker"), tmp_path / "ranker-onnx")
    make()
    with Index(folder, model) as index, Reranker(tmp_path / "ranker-onnx", threads=1) as reranker:
        first = index.search(QUESTION, 4)
        hits = index.search(QUESTION, 2, reranker=reranker, candidates=4)
        scored = reranker.predict([(QUESTION, hit.text) for hit in first])
        order = np.argsort(-scored, kind="stable")[:2]
        assert [(hit.file, hit.start) for hit in hits] == [(first[k].file, first[k].start) for k in order]
        np.testing.assert_allclose([hit.score for hit in hits], scored[order], rtol=0, atol=1e-6)


def test_codes_are_within_half_a_step_and_their_products_exact(tmp_path: Path) -> None:
    made = np.random.default_rng(0)
    vectors = made.normal(size=(3000, 48)).astype(np.float32)
    vectors[7] = 0
    codes, scales = coded(vectors)
    assert codes.dtype == np.int8
    assert codes.min() == -127
    assert np.all(np.abs(restored(codes, scales) - vectors) <= 0.5001 * scales[:, None])
    alone, _ = coded(vectors[5:6])
    np.testing.assert_array_equal(alone[0], codes[5])  # neighbours do not change a code
    question = made.normal(size=48).astype(np.float32)
    wanted = (codes.astype(np.float64) * scales.astype(np.float64)[:, None]) @ question.astype(np.float64)
    np.testing.assert_allclose(scores(codes, scales, question), wanted, rtol=0, atol=1e-4)
    order = np.argsort(-scores(codes, scales, question), kind="stable")
    for count in (0, 1, 10, 3000, 5000):
        np.testing.assert_array_equal(best(scores(codes, scales, question), count), order[:count])
    assert best(np.array([1, 3, 3, 3, 2], np.float32), 2).tolist() == [1, 2]  # of equal ones the first
    assert scores(codes[:0], scales[:0], question).shape == (0,)


@pytest.mark.parametrize("dim", [8, 31, 384, 1024])
@pytest.mark.parametrize("rows", [1, 2, 7, 300, 1000])
def test_equal_chunks_are_equally_near_wherever_they_stand(rows: int, dim: int) -> None:
    made = np.random.default_rng(rows * dim)
    for _ in range(20):
        question = made.standard_normal(dim).astype(np.float32)
        codes, scales = coded(np.repeat(made.standard_normal((3, dim)), rows, axis=0).astype(np.float32))
        order = made.permutation(3 * rows)
        kind = np.repeat(np.arange(3), rows)[order]
        numbers, found = nearest(codes[order], scales[order], question, 2 * rows)
        assert len({float(score) for score in found}) == 2
        exact = (codes[order].astype(np.float64) @ question) * scales[order]
        np.testing.assert_allclose(found, exact[numbers], rtol=0, atol=1e-5 * np.abs(exact).max())
        best_kind, second = kind[numbers[0]], kind[numbers[-1]]
        assert numbers.tolist() == [*np.flatnonzero(kind == best_kind), *np.flatnonzero(kind == second)]


def test_the_nearest_are_those_of_all_scores_in_exact_numbers() -> None:
    made = np.random.default_rng(0)
    codes, scales = coded(made.standard_normal((5000, 96)).astype(np.float32))
    for _ in range(20):
        question = made.standard_normal(96).astype(np.float32)
        exact = (codes.astype(np.float64) @ question.astype(np.float64)) * scales
        for count in (1, 10, 5000, 6000):
            numbers, found = nearest(codes, scales, question, count)
            assert numbers[:10].tolist() == np.argsort(-exact, kind="stable")[: min(count, 10)].tolist()
            assert sorted(numbers.tolist()) == sorted(set(numbers.tolist()))
            assert len(numbers) == min(count, 5000)
            assert (np.diff(found) <= 0).all()


def test_a_hundred_thousand_vectors_are_searched_in_time() -> None:
    """20 ms on a machine that does nothing else (benchmarks.inside.search); here a bound that only a mistake passes."""
    codes = np.random.default_rng(0).integers(-127, 128, (100_000, 384), dtype=np.int8)
    scales, question = np.ones(100_000, np.float32), np.ones(384, np.float32)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        nearest(codes, scales, question, 10)
        times.append(time.perf_counter() - start)
    assert min(times) < 1


def test_an_empty_folder_has_an_empty_index(tmp_path: Path, model: EmbeddingModel) -> None:
    done = build(tmp_path, model, opened_from="x")
    assert (done.chunks, done.added) == (0, [])
    with Index(tmp_path, model) as index:
        assert index.search(QUESTION) == []
    with pytest.raises(InvalidInputError, match="is not a directory"):
        build(tmp_path / "none", model, opened_from="x")
    with pytest.raises(InvalidInputError, match=r"none is not a directory; give the folder whose files are searched"):
        Index(tmp_path / "none", model)
    (tmp_path / "bare").mkdir()
    with pytest.raises(InvalidInputError, match=r"fastembed-rt index build .*bare --model MODEL"):
        Index(tmp_path / "bare", model)


def test_what_is_stored_names_the_model(folder: Path, make: Callable[..., Built], model: EmbeddingModel) -> None:
    make()
    about = json.loads(pq.read_schema(store.place(folder)).metadata[store.KEY])
    documents = model.fingerprint(prompt_name="document", normalize=True)
    assert about["settings"]["documents"] == documents
    assert about["settings"]["questions"] == model.fingerprint(prompt_name="query", normalize=True)
    assert building.settings_of(model, about["settings"]["model"]).documents == documents
