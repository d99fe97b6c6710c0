"""`embed` into stored forms, the fingerprint that every output carries, and rows added to an output that is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sentence_transformers import util

from fastembed_rt import EmbeddingModel, cli
from fastembed_rt.cli import provenance, writers
from fastembed_rt.errors import InvalidInputError

TEXTS = [f"the {a} {b}" for a in "cat dog house river old new".split() for b in "runs sleeps".split()]
PRECISIONS = ["float32", "float16", "int8", "uint8", "binary", "ubinary"]
precisions = pytest.mark.parametrize("precision", PRECISIONS)
growing = pytest.mark.parametrize("ending", ["npy", "jsonl"])
Array = npt.NDArray[Any]
Embed = Callable[..., int]


@pytest.fixture
def embed(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embed:
    """Embeds texts with the pair's model, in an empty directory that is the current one."""
    monkeypatch.chdir(tmp_path)

    def run(texts: list[str], *options: str) -> int:
        (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in texts))
        return cli.main(["embed", str(model_dir), "in.txt", "--quiet", "--threads", "1", *options])

    return run


@pytest.fixture
def ranges(model: EmbeddingModel, tmp_path: Path) -> npt.NDArray[np.float32]:
    """Ranges for the pair's model, saved as ranges.npy."""
    vectors = model.encode([*TEXTS, "a tree", "a light"])
    found = np.vstack([vectors.min(axis=0), vectors.max(axis=0)])
    np.save(tmp_path / "ranges.npy", found)
    return found


def options_of(precision: str) -> list[str]:
    return ["--output-precision", precision, *(["--ranges", "ranges.npy"] if precision in ("int8", "uint8") else [])]


def stored_of(vectors: Array, precision: str, ranges: Array) -> Array:
    if precision == "float16":
        return vectors.astype(np.float16)
    found: Array = util.quantize_embeddings(vectors, precision, ranges=ranges)
    return found


def read(path: str, dtype: Any) -> Array:
    """Vectors of an output, by what reads such files anywhere."""
    if path.endswith(".npy"):
        found = np.load(path, mmap_mode="r")
        assert found.dtype == dtype
        return np.array(found)
    if path.endswith(".parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
        column = parquet.read_table(path).column("embedding").combine_chunks()
        flat = column.flatten().to_numpy()
        assert flat.dtype == dtype
        return np.asarray(flat.reshape(len(column), -1))
    rows = [json.loads(line)["embedding"] for line in Path(path).read_text().splitlines()]
    found = np.array(rows)
    assert np.dtype(dtype).kind == "f" or found.dtype.kind == "i"
    return found.astype(dtype)


def fingerprint_of(path: str) -> str:
    if path.endswith(".parquet"):
        parquet = pytest.importorskip("pyarrow.parquet")
        return str(parquet.read_schema(path).metadata[writers.FINGERPRINT_KEY.encode()].decode())
    return str(json.loads(Path(f"{path}.json").read_text())["fingerprint"])


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {"in.txt", "ranges.npy"}


@precisions
@pytest.mark.parametrize("where", [["-o", "out.parquet"], ["--shards", "out"]], ids=["file", "parts"])
def test_zeros_for_a_row_without_a_text_are_stored_as_zeros_are(
    embed: Embed, ranges: Array, model: EmbeddingModel, tmp_path: Path, precision: str, where: list[str]
) -> None:
    pytest.importorskip("pyarrow")
    rows = [json.dumps({"text": text}) for text in (TEXTS[0], None, TEXTS[1])]
    assert embed(rows, *options_of(precision), "--input-format", "jsonl", "--on-null", "zero", *where) == 0
    (file,) = [tmp_path / "out.parquet"] if where[0] == "-o" else (tmp_path / "out").glob("part-*.parquet")
    zeros = stored_of(np.zeros((1, model.dim), np.float32), precision, ranges)
    np.testing.assert_array_equal(read(str(file), zeros.dtype)[1], zeros[0])


# --- forms in files --------------------------------------------------------------------------------------------------


@precisions
@pytest.mark.parametrize("ending", ["npy", "jsonl", "parquet"])
def test_a_file_holds_the_form_and_its_fingerprint(
    embed: Embed, model: EmbeddingModel, ranges: Array, precision: str, ending: str
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    output = f"out.{ending}"
    assert embed(TEXTS, *options_of(precision), "-o", output, "--prompt-name", "query") == 0
    wanted = stored_of(model.encode(TEXTS, prompt_name="query"), precision, ranges)
    np.testing.assert_array_equal(read(output, wanted.dtype), wanted)
    asked: dict[str, Any] = {"ranges": ranges} if precision in ("int8", "uint8") else {}
    assert fingerprint_of(output) == model.fingerprint(prompt_name="query", precision=precision, **asked)


def test_cut_bits_are_those_of_the_cut_vectors(embed: Embed, model: EmbeddingModel) -> None:
    assert embed(TEXTS, "--output-precision", "ubinary", "--truncate-dim", "13", "-o", "out.npy") == 0
    wanted = np.packbits(model.encode(TEXTS)[:, :13] > 0, axis=1)
    np.testing.assert_array_equal(read("out.npy", np.uint8), wanted)
    assert fingerprint_of("out.npy") == model.fingerprint(truncate_dim=13, precision="ubinary")


def test_ranges_come_from_vectors_that_embed_wrote(embed: Embed, model: EmbeddingModel) -> None:
    assert embed(TEXTS, "-o", "sample.npy") == 0
    assert embed(TEXTS[:3], "--output-precision", "int8", "--calibration-embeddings", "sample.npy", "-o", "x.npy") == 0
    sample = model.encode(TEXTS)
    wanted = util.quantize_embeddings(sample[:3], "int8", calibration_embeddings=sample)
    np.testing.assert_array_equal(read("x.npy", np.int8), wanted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output-precision", "int8"], "needs --ranges FILE.npy or --calibration-embeddings FILE.npy"),
        (["--ranges", "ranges.npy"], "--ranges is for --output-precision int8 and uint8"),
        (["--output-precision", "binary", "--calibration-embeddings", "ranges.npy"], "--calibration-embeddings is for"),
        (["--output-precision", "int8", "--ranges", "none.npy"], "none.npy does not exist"),
        (["--output-precision", "int8", "--ranges", "in.txt"], "in.txt is not a .npy file"),
        (["--output-precision", "int8", "--ranges", "empty.npy"], "empty.npy is not a .npy file"),
        (["--output-precision", "int8", "--ranges", "many.npz"], "many.npz is an archive"),
        (["--output-precision", "uint8", "--ranges", "words.npy"], "ranges are not numbers"),
        (["--output-precision", "uint8", "--ranges", "ranges.npy", "--truncate-dim", "7"], "expected (2, 7)"),
        (["--append"], "--append is for a file; name one with -o"),
        (["--append", "-o", "out.parquet"], "cannot grow; write another file beside it"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_a_line(
    embed: Embed, ranges: Array, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty.npy").touch()
    np.savez("many.npz", a=ranges)
    np.save("words.npy", np.array(["a", "b"]))
    if "out.parquet" in options:
        pytest.importorskip("pyarrow")
    assert embed(TEXTS, *options) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# --- the file beside an output ---------------------------------------------------------------------------------------


def test_a_pipe_leaves_no_file_behind(embed: Embed, tmp_path: Path, capfdbinary: Any) -> None:
    assert embed(TEXTS) == 0
    assert names(tmp_path) == set()
    assert len(capfdbinary.readouterr().out.splitlines()) == len(TEXTS)


def test_a_foreign_file_of_that_name_is_kept_unless_forced(
    embed: Embed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = tmp_path / "out.npy.json"
    note.write_text('{"mine": 1}')
    assert embed(TEXTS, "-o", "out.npy") == 2
    assert "out.npy.json exists already and is no fingerprint of out.npy" in capsys.readouterr().err
    assert names(tmp_path) == {"out.npy.json"}
    assert embed(TEXTS, "-o", "out.npy", "--force") == 0
    assert fingerprint_of("out.npy").endswith("float32")


def test_a_replaced_output_has_the_new_fingerprint(embed: Embed) -> None:
    assert embed(TEXTS, "-o", "out.npy") == 0
    assert embed(TEXTS, "-o", "out.npy", "--force", "--output-precision", "binary") == 0
    assert fingerprint_of("out.npy").endswith("-binary")


def test_a_failed_run_leaves_the_fingerprint_of_the_old_output(embed: Embed, tmp_path: Path) -> None:
    assert embed(TEXTS, "-o", "out.npy") == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "in.txt"}
    for options in (["--force"], ["--append"]):
        assert embed(["the cat " * 9], "-o", "out.npy", "--truncation", "error", *options) == 2
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != "in.txt"} == before


# --- appending -------------------------------------------------------------------------------------------------------


@precisions
@growing
def test_two_runs_make_the_file_of_one(
    embed: Embed, tmp_path: Path, ranges: Array, precision: str, ending: str
) -> None:
    output = f"out.{ending}"
    assert embed(TEXTS, *options_of(precision), "-o", f"whole.{ending}") == 0
    for part in (TEXTS[:5], [], TEXTS[5:6], TEXTS[6:]):
        assert embed(part, *options_of(precision), "-o", output, "--append") == 0
    assert Path(output).read_bytes() == Path(f"whole.{ending}").read_bytes()
    assert fingerprint_of(output) == fingerprint_of(f"whole.{ending}")
    assert names(tmp_path) == {output, f"{output}.json", f"whole.{ending}", f"whole.{ending}.json"}


@growing
@pytest.mark.parametrize(
    "options",
    [
        ["--prompt-name", "query"],
        ["--truncate-dim", "8"],
        ["--output-precision", "float16"],
        ["--max-length", "9"],
        ["--truncation", "chunk"],
    ],
)
def test_vectors_of_another_kind_are_refused_with_both_fingerprints(
    embed: Embed, model: EmbeddingModel, ending: str, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"out.{ending}"
    assert embed(TEXTS, "-o", output) == 0
    before = Path(output).read_bytes()
    assert embed(TEXTS, "-o", output, "--append", *options) == 2
    said = capsys.readouterr().err
    assert f"{output} holds vectors of {model.fingerprint()}, these would be {model.fingerprint()[:12]}-" in said
    assert said.count(model.fingerprint()) == 1
    assert Path(output).read_bytes() == before
    assert fingerprint_of(output) == model.fingerprint()


@growing
@pytest.mark.parametrize("note", [None, "", "[]", "{}", '{"fingerprint": 5}'])
def test_an_output_that_does_not_say_what_made_it_does_not_grow(
    embed: Embed, ending: str, note: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    output = f"out.{ending}"
    assert embed(TEXTS, "-o", output) == 0
    Path(f"{output}.json").unlink() if note is None else Path(f"{output}.json").write_text(note)
    assert embed(TEXTS, "-o", output, "--append") == 2
    assert f"{output} does not say what made it: {output}.json is missing or damaged" in capsys.readouterr().err


def change(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "cut":
        path.write_bytes(content[:-5])
    elif how == "longer":
        path.write_bytes(content + b"more")
    elif how == "saved again":
        np.save(path, np.load(path)[:, :8])
    elif how == "by columns":
        np.save(path, np.asfortranarray(np.load(path)))
    elif how == "other numbers":
        np.save(path, np.load(path).astype(np.float64))
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        *(("npy", how) for how in ("cut", "longer", "saved again", "by columns", "other numbers", "emptied")),
        ("jsonl", "cut"),
        ("jsonl", "longer"),
    ],
)
def test_a_changed_output_does_not_grow(
    embed: Embed, ending: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Path(f"out.{ending}")
    assert embed(TEXTS, "-o", str(output)) == 0
    change(output, how)
    before = output.read_bytes()
    assert embed(TEXTS, "-o", str(output), "--append") == 2
    said = capsys.readouterr().err
    assert "is not as embed wrote it" in said or "is not a .npy file that embed wrote" in said
    assert output.read_bytes() == before


@pytest.mark.parametrize("exists", [True, False])
def test_an_output_that_changes_meanwhile_is_not_overwritten(embed: Embed, tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "out.jsonl"
    if exists:
        target.write_bytes(b"first\n")
    with (
        pytest.raises(InvalidInputError, match="changed while vectors were computed for it"),
        writers.open_target(str(target), "jsonl", force=False, append=True) as stream,
    ):
        stream.write(b"ours\n")
        target.write_bytes(b"first\ntheirs\n")
    assert target.read_bytes() == b"first\ntheirs\n"
    assert names(tmp_path) == {"out.jsonl"}


def test_append_and_force_exclude_each_other(embed: Embed) -> None:
    assert embed(TEXTS, "-o", "out.npy", "--append", "--force") == 2


def test_the_fingerprint_of_a_link_lies_beside_what_it_points_to(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "out.npy").symlink_to("there/real.npy")
    assert embed(TEXTS[:4], "-o", "out.npy") == 0
    assert provenance.beside("out.npy") == (tmp_path / "there" / "real.npy.json").resolve()
    assert embed(TEXTS[4:], "-o", "out.npy", "--append") == 0
    assert np.load("there/real.npy").shape == (len(TEXTS), 24)
