"""Vectors cut in the graph, on the user's word or the checkpoint's, beside sentence-transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from checkpoints import TEXTS, change_json, reference_vectors, save_sentence_transformers
from tokenizers import Tokenizer
from tolerances import close

from fastembed_rt import EmbeddingModel, cli, manifest
from fastembed_rt.errors import CheckpointError, InvalidInputError, ParityError
from fastembed_rt_export import heads
from fastembed_rt_export.checkpoint import read as checkpoints
from fastembed_rt_export.checkpoint.read import Overrides
from fastembed_rt_export.pipeline import ExportOptions, check_again, export

pytestmark = pytest.mark.usefixtures("short_gate")

Vectors = npt.NDArray[np.float32]
SETTINGS = "config_sentence_transformers.json"


@pytest.fixture(scope="module")
def unit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that normalizes: 24 numbers a vector."""
    return save_sentence_transformers(tmp_path_factory.mktemp("unit") / "unit")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that ends with a dense layer: 40 numbers a vector."""
    return save_sentence_transformers(tmp_path_factory.mktemp("raw") / "raw", dense=40, normalize=False)


def made(checkpoint: Path, output: Path, precisions: tuple[str, ...] = ("fp32",), **overrides: Any) -> Any:
    """Manifest of an export that passed the parity gate."""
    options = ExportOptions(output=output, overrides=Overrides(**overrides), precisions=precisions, min_cosine=0.8)
    return export(str(checkpoint), options).manifest


def encoded(directory: Path, **options: Any) -> Vectors:
    with EmbeddingModel(directory, threads=1, **options) as model:
        vectors: Vectors = model.encode(TEXTS)
    return vectors


@pytest.mark.parametrize("dim", [1, 7, 24])
def test_a_cut_comes_before_the_normalization(unit: Path, tmp_path: Path, dim: int) -> None:
    described = made(unit, tmp_path / "model", truncate_dim=dim)
    assert described.dim == dim
    assert described.normalize
    assert described.modules[2:] == (f"Truncate({dim})", "Normalize")
    assert described.overrides == {"truncate_dim": dim}
    assert described.parity["status"] == "passed"
    wanted = reference_vectors(unit, truncate_dim=dim, normalize_embeddings=True)
    for target in ("cpu", "portable"):
        close(encoded(tmp_path / "model", target=target), wanted)
    np.testing.assert_allclose(np.linalg.norm(wanted, axis=1), 1, atol=1e-5)


def test_the_graph_itself_gives_cut_vectors(unit: Path, tmp_path: Path) -> None:
    described = made(unit, tmp_path / "model", truncate_dim=5)
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    tokenizer.enable_truncation(described.max_length)
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx")
    assert session.get_outputs()[0].shape == ["batch", 5]
    wanted = reference_vectors(unit, truncate_dim=5, normalize_embeddings=True)
    for text, row in zip(TEXTS, wanted, strict=True):
        ids = np.array([tokenizer.encode(text).ids])
        (vectors,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        close(vectors, row[None])


def test_a_chain_without_normalization_is_cut_at_its_end(raw: Path, tmp_path: Path) -> None:
    described = made(raw, tmp_path / "model", truncate_dim=9)
    assert described.modules[2:] == ("Dense(24 -> 40, tanh)", "Truncate(9)")
    assert not described.normalize
    close(encoded(tmp_path / "model"), reference_vectors(raw, truncate_dim=9))


@pytest.mark.parametrize("normalize", [True, False])
def test_a_cut_and_a_changed_normalization_go_together(unit: Path, raw: Path, tmp_path: Path, normalize: bool) -> None:
    checkpoint = raw if normalize else unit
    described = made(checkpoint, tmp_path / "model", truncate_dim=9, normalize=normalize)
    assert described.normalize == normalize
    ours = encoded(tmp_path / "model")
    if normalize:
        close(ours, reference_vectors(raw, truncate_dim=9, normalize_embeddings=True))
    else:
        assert np.linalg.norm(ours, axis=1).max() > 1.1  # the checkpoint's own Normalize is gone
    assert check_again(tmp_path / "model", str(checkpoint), ExportOptions(), print).parity["status"] == "passed"


def test_int8_vectors_are_cut_too(unit: Path, tmp_path: Path) -> None:
    described = made(unit, tmp_path / "model", ("int8", "fp32"), truncate_dim=12)
    assert set(described.parity["variants"]) == {variant.graph.file for variant in described.variants}
    ours, exact = encoded(tmp_path / "model", precision="int8"), encoded(tmp_path / "model", precision="fp32")
    assert ours.shape == exact.shape == (len(TEXTS), 12)
    assert (ours * exact).sum(axis=1).mean() > 0.95


@pytest.mark.parametrize(
    ("dim", "message"),
    [
        (25, "truncate_dim 25 is not possible; the vectors have 24 numbers"),
        (0, "truncate_dim 0 is not possible"),
        (-3, "truncate_dim -3 is not possible"),
    ],
)
def test_a_length_that_the_vectors_do_not_have_is_refused(unit: Path, tmp_path: Path, dim: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        made(unit, tmp_path / "model", truncate_dim=dim)
    assert list(tmp_path.iterdir()) == []


def test_the_gate_finds_a_graph_cut_at_the_wrong_end(
    unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def last(graph: Any, vectors: Any, dim: int) -> Any:
        return graph.node("Slice", vectors, graph.constant([-dim]), graph.constant([2**31]), graph.constant([1]))

    monkeypatch.setattr(heads, "truncate", last)
    with pytest.raises(ParityError, match="out of bounds"):
        made(unit, tmp_path / "model", truncate_dim=9)


def test_the_command_line_bakes_the_cut_in_and_the_runtime_cuts_further(
    unit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "model"
    assert cli.main(["export", str(unit), "-o", str(output), "--truncate-dim", "9", "--no-verify"]) == 0
    assert "changed: truncate_dim = 9" in capsys.readouterr().out
    assert manifest.read(output).dim == 9
    close(encoded(output), reference_vectors(unit, truncate_dim=9, normalize_embeddings=True))
    close(encoded(output, truncate_dim=4), reference_vectors(unit, truncate_dim=4, normalize_embeddings=True))


# --- the checkpoint's own truncate_dim -------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A normalizing checkpoint whose settings cut its vectors to 10 numbers."""
    checkpoint = save_sentence_transformers(tmp_path / "own")
    change_json(checkpoint / SETTINGS, truncate_dim=10)
    return checkpoint


def test_a_cut_of_the_checkpoints_own_is_kept_as_it_is(own: Path, tmp_path: Path) -> None:
    described = made(own, tmp_path / "model")
    assert (described.dim, described.normalize, described.overrides) == (10, False, {})
    assert described.modules[2:] == ("Normalize", "Truncate(10)")
    wanted = reference_vectors(own)
    assert wanted.shape[1] == 10
    assert np.linalg.norm(wanted, axis=1).max() < 0.99  # sentence-transformers does not normalize again
    close(encoded(tmp_path / "model"), wanted)
    assert cut_notes(described) == [
        "the checkpoint's truncate_dim cuts vectors to 10 numbers behind their normalization, and they are not "
        "normalized again, as in sentence-transformers; --normalize does that"
    ]
    again = encoded(tmp_path / "model", truncate_dim=4)  # nor are they by the runtime
    close(again, reference_vectors(own, truncate_dim=4))


def cut_notes(described: Any) -> list[str]:
    return [note for note in described.notes if "truncate_dim" in note]


@pytest.mark.parametrize(
    ("overrides", "modules"),
    [
        ({"truncate_dim": 6}, ("Truncate(6)", "Normalize")),
        ({"truncate_dim": 20}, ("Truncate(20)", "Normalize")),
        ({"normalize": True}, ("Truncate(10)", "Normalize")),
        ({"normalize": False}, ("Truncate(10)",)),
        ({"normalize": False, "truncate_dim": 6}, ("Truncate(6)",)),
    ],
)
def test_the_users_word_stands_over_the_checkpoints_cut(
    own: Path, tmp_path: Path, overrides: dict[str, Any], modules: tuple[str, ...]
) -> None:
    described = made(own, tmp_path / "model", **overrides)
    assert described.modules[2:] == modules
    assert cut_notes(described) == []
    assert described.parity["status"] == "passed"
    if "Normalize" in modules:
        dim = overrides.get("truncate_dim", 10)
        wanted = reference_vectors(own, truncate_dim=dim, normalize_embeddings=True)
        close(encoded(tmp_path / "model"), wanted)


def test_a_cut_longer_than_the_vectors_cuts_nothing(own: Path, tmp_path: Path) -> None:
    change_json(own / SETTINGS, truncate_dim=500)
    described = made(own, tmp_path / "model")
    assert (described.dim, cut_notes(described)) == (24, [])
    close(encoded(tmp_path / "model"), reference_vectors(own))


def test_vectors_that_are_not_normalized_are_cut_without_a_note(raw: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "raw"
    shutil.copytree(raw, checkpoint)
    change_json(checkpoint / SETTINGS, truncate_dim=10)
    described = made(checkpoint, tmp_path / "model")
    assert (described.dim, cut_notes(described)) == (10, [])


@pytest.mark.parametrize("value", [0, -1, 2.5, "8", True])
def test_a_cut_that_is_no_length_is_refused(own: Path, value: Any) -> None:
    change_json(own / SETTINGS, truncate_dim=value)
    with pytest.raises(CheckpointError, match=f"truncate_dim {value!r} is not a number of dimensions"):
        checkpoints.load(own, "own")
