"""A model by its checkpoint's name: exported once, with the reference's vectors, again when the checkpoint changes."""

from __future__ import annotations

import copy
import errno
import inspect
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from adapters import Made
from checkpoints import TEXTS, change_json, change_tensors, reference_vectors, save_sentence_transformers
from cross_encoders import PAIRS, reference_scores, save_classifier
from exports import quick
from jina_checkpoints import PASSAGE, QUERY, save_embedder
from jina_checkpoints import wanted as jina_vectors
from multi_vectors import save_multi_vector
from sparse_encoders import save_masked_lm, save_splade
from tolerances import close

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel
from fastembed_rt.cache import exporting, find
from fastembed_rt.cache.wanted import Wanted
from fastembed_rt.errors import (
    CheckpointError,
    IntegrityError,
    InvalidInputError,
    InvalidTypeError,
    ModelNotFoundError,
    UnsupportedCheckpointError,
)
from fastembed_rt.models.checkpoint import EXPORTING, CheckpointOptions, ExportOptions, OwnOptions
from fastembed_rt.models.opening import LoadOptions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("made") / "mine", max_seq_length=16)


@pytest.fixture
def checkpoint(made: Path, tmp_path: Path) -> Path:
    """BERT, cut at 16 tokens; a copy to change."""
    return Path(shutil.copytree(made, tmp_path / "mine"))


def opened(checkpoint: Path | str, **options: Any) -> EmbeddingModel:
    return EmbeddingModel.from_checkpoint(checkpoint, **{"verify": False, **options})


def test_vectors_are_the_references_and_the_second_time_nothing_is_exported(
    checkpoint: Path, cache: Path, exports: list[str]
) -> None:
    wanted = reference_vectors(checkpoint)
    for _ in range(2):
        with opened(checkpoint) as model:
            close(model.encode(TEXTS), wanted)
            assert model.path.parent.parent == cache.resolve()
    assert exports == ["mine"]


def test_other_tasks_open_from_their_checkpoints(tmp_path: Path, exports: list[str]) -> None:
    from sentence_transformers import MultiVectorEncoder, SparseEncoder

    pairs = save_classifier(tmp_path / "pairs")
    with Reranker.from_checkpoint(pairs, verify=False) as reranker:
        np.testing.assert_allclose(reranker.predict(PAIRS), reference_scores(pairs, PAIRS), rtol=1e-5, atol=1e-5)
    splade = save_splade(tmp_path / "splade")
    theirs = SparseEncoder(str(splade), device="cpu", local_files_only=True)
    with SparseModel.from_checkpoint(splade, verify=False) as sparse:
        found = np.stack([vector.to_dense() for vector in sparse.encode(TEXTS)])
        close(found, theirs.encode(TEXTS, convert_to_sparse_tensor=False).numpy())
    late = save_multi_vector(tmp_path / "late")
    reference = MultiVectorEncoder(str(late), device="cpu", local_files_only=True)
    with LateInteractionModel.from_checkpoint(late, verify=False) as multi:
        for vectors, others in zip(multi.encode_document(TEXTS), reference.encode_document(TEXTS), strict=True):
            close(vectors, np.asarray(others))
    assert exports == ["pairs", "splade", "late"]


def test_a_masked_language_model_is_sparse_where_the_sparse_class_opens_it(tmp_path: Path) -> None:
    plain = save_masked_lm(tmp_path / "mlm")
    with SparseModel.from_checkpoint(plain, verify=False) as sparse, opened(plain) as dense:
        assert sparse.path != dense.path
        assert (sparse.manifest.task, dense.manifest.task) == ("sparse", "embedding")


def test_a_checkpoint_for_another_class_is_refused_before_it_is_exported(tmp_path: Path, cache: Path) -> None:
    pairs = save_classifier(tmp_path / "pairs")
    with pytest.raises(InvalidInputError, match=r"pairs is a checkpoint for reranking; .*Reranker, not EmbeddingModel"):
        opened(pairs)
    assert not list(cache.glob("*.embedding"))


def test_int8_is_compared_with_the_reference_and_has_an_entry_of_its_own(checkpoint: Path, exports: list[str]) -> None:
    with opened(checkpoint, precision="int8", verify=True) as model, opened(checkpoint) as plain:
        assert (model.precision, model.manifest.parity["status"]) == ("int8", "passed")
        assert plain.precision == "fp32"
        wanted = reference_vectors(checkpoint)
        assert (np.sum(model.encode(TEXTS) * wanted, axis=1) > 0.98).all()
    assert exports == ["mine", "mine"]
    with opened(checkpoint, precision="int8"):  # compared, which is more than asked for
        assert exports == ["mine", "mine"]


def test_options_of_the_constructor_reach_it_and_make_no_other_export(checkpoint: Path, exports: list[str]) -> None:
    with opened(checkpoint, max_length=9, truncate_dim=8, prompts={"a": "dog "}, default_prompt_name="a") as model:
        assert (model.max_length, model.truncate_dim, model.default_prompt_name) == (9, 8, "a")
        assert model.encode("a").shape == (8,)
    opened(checkpoint, threads=1, revision=None, token="x", local_files_only=True).close()
    assert exports == ["mine"]


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"pooling": "cls"}, lambda m: m.manifest.pooling == ("cls",)),
        ({"pooling": "cls+mean"}, lambda m: m.dim == 48),
        ({"normalize": False}, lambda m: m.manifest.normalize is False),
        ({"tokens": True}, lambda m: m.encode("a dog", output="tokens").vectors.shape[1] == 24),
        ({"target": "portable"}, lambda m: m.target == "portable"),
        ({"target": "native"}, lambda m: (m.target, m.precision) == ("native", "fp32")),
    ],
)
def test_options_of_the_export_reach_it(
    checkpoint: Path, exports: list[str], options: dict[str, Any], fact: Any
) -> None:
    opened(checkpoint).close()
    for _ in range(2):
        with opened(checkpoint, **options) as model:
            assert fact(model)
    assert len(exports) == (1 if "target" in options else 2)  # which comes with the others


def test_other_calibration_texts_are_another_export(checkpoint: Path, tmp_path: Path, exports: list[str]) -> None:
    texts = tmp_path / "texts.txt"
    for content in ("a dog runs\n" * 9, "the red house\n" * 9, "the red house\n" * 9):
        texts.write_text(content)
        opened(checkpoint, precision="int8", calibration=texts).close()
    assert len(exports) == 2


CHANGES: dict[str, Any] = {
    "weights": lambda c: change_tensors(c, lambda t: t.update({name: 1.5 * value for name, value in t.items()})),
    "pooling": lambda c: change_json(c / "1_Pooling" / "config.json", pooling_mode="cls"),
    "length": lambda c: change_json(c / "sentence_bert_config.json", max_seq_length=7),
    "tokenizer": lambda c: (c / "tokenizer.json").write_text((c / "tokenizer.json").read_text().replace("dog", "cow")),
    "prompts": lambda c: change_json(
        c / "config_sentence_transformers.json", prompts={"q": "a dog "}, default_prompt_name="q"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_checkpoint_that_changed_is_exported_again(checkpoint: Path, exports: list[str], change: str) -> None:
    opened(checkpoint).close()
    CHANGES[change](checkpoint)
    for _ in range(2):
        with opened(checkpoint) as model:
            close(model.encode(TEXTS), reference_vectors(checkpoint))
    assert exports == ["mine", "mine"]


def test_a_checkpoint_changed_while_it_is_exported_leaves_no_entry(
    checkpoint: Path, cache: Path, exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastembed_rt.cache import exporting

    real = exporting.export

    def changing(*arguments: Any, **options: Any) -> Any:
        made = real(*arguments, **options)
        change_json(checkpoint / "1_Pooling" / "config.json", pooling_mode="cls")
        return made

    monkeypatch.setattr(exporting, "export", changing)
    with pytest.raises(CheckpointError, match="changed while it was exported"):
        opened(checkpoint)
    assert [path.suffix for path in cache.iterdir() if path.is_dir() and path.name != "hashes"] == []


def test_a_checkpoint_that_moved_is_the_same(checkpoint: Path, tmp_path: Path, exports: list[str]) -> None:
    opened(checkpoint).close()
    (tmp_path / "elsewhere").mkdir()
    with opened(shutil.move(checkpoint, tmp_path / "elsewhere" / "mine")):
        assert exports == ["mine"]


def test_a_model_directory_is_opened_as_it_is(checkpoint: Path, tmp_path: Path, cache: Path) -> None:
    quick(checkpoint, tmp_path / "model")
    with opened(tmp_path / "model") as model:
        assert model.path == (tmp_path / "model").resolve()
    with pytest.raises(InvalidInputError, match="pooling='cls' is for checkpoints"):
        opened(tmp_path / "model", pooling="cls")
    with pytest.raises(InvalidInputError, match=r"precision 'int8' is not in this model directory"):
        opened(tmp_path / "model", precision="int8")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"provder": "cpu"}, TypeError, "provder: did you mean provider="),
        ({"query_length": 4}, TypeError, "EmbeddingModel.from_checkpoint has no option 'query_length'"),
        ({"precision": "int4"}, InvalidInputError, "'int4' is not a precision"),
        (
            {"precision": "fp16"},
            InvalidInputError,
            r"'cpu', for which there are fp32, bf16 and int8; fp16 is for target cuda",
        ),
        ({"target": "cuda"}, InvalidInputError, "target 'cuda' does not run with provider 'cpu'"),
        (
            {"target": "cpu", "precision": "bf16"},
            InvalidInputError,
            "with target 'cpu', for which there are fp32 and int8",
        ),
        ({"provider": "abacus"}, InvalidInputError, "provider 'abacus' is not known"),
        ({"pooling": "none"}, InvalidInputError, "pooling 'none' is not known"),
        ({"calibration": "nowhere", "precision": "int8"}, InvalidInputError, "nowhere cannot be read"),
        ({"revision": "main"}, InvalidInputError, "is a directory here"),
    ],
)
def test_what_is_not_possible_is_said_and_leaves_no_entry(
    checkpoint: Path, cache: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        opened(checkpoint, **options)
    assert not list(cache.glob("*.embedding"))


def test_a_directory_that_holds_nothing_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds no manifest.json"):
        opened(tmp_path)


def test_what_the_export_refuses_is_refused_and_asked_again(checkpoint: Path, exports: list[str]) -> None:
    change_json(checkpoint / "config.json", hidden_act="nothing known")
    for _ in range(2):
        with pytest.raises((UnsupportedCheckpointError, CheckpointError)):
            opened(checkpoint)
    assert len(exports) == 2


def test_an_entry_that_lost_a_file_is_made_anew(checkpoint: Path, exports: list[str]) -> None:
    with opened(checkpoint) as model:
        place = model.path
    (place / "tokenizer.json").unlink()
    opened(checkpoint).close()
    (place / "model.onnx").write_bytes(b"")
    with opened(checkpoint) as model:
        close(model.encode(TEXTS), reference_vectors(checkpoint))
    assert len(exports) == 3


def test_an_entry_whose_bytes_were_altered_does_not_run(checkpoint: Path) -> None:
    with opened(checkpoint) as model:
        place = model.path
    graph = place / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    with pytest.raises(IntegrityError), opened(checkpoint) as model:
        model.encode(TEXTS)


def test_a_cache_that_cannot_be_written_is_named(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "file"))
    with pytest.raises(InvalidInputError, match=r"file/exports .*set FASTEMBED_RT_CACHE"):
        opened(checkpoint)


FULL = [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT]


@pytest.mark.parametrize("number", FULL, ids=errno.errorcode.get)
def test_a_cache_that_is_read_only_or_full_is_named_before_anything_is_fetched(
    number: int, checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Any] = []
    monkeypatch.setattr(find, "resolve_checkpoint", lambda *given, **options: fetched.append(given))
    real = Path.mkdir

    def mkdir(path: Path, *given: Any, **options: Any) -> None:
        if path.suffix == ".partial":
            raise OSError(number, os.strerror(number), str(path))
        real(path, *given, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(InvalidInputError, match=rf"{os.strerror(number)}\); set FASTEMBED_RT_CACHE to a directory"):
        opened(checkpoint)
    assert not fetched
    assert cache.is_dir()


@pytest.mark.parametrize("number", FULL, ids=errno.errorcode.get)
@pytest.mark.parametrize("named", [True, False])
def test_a_cache_that_becomes_full_is_named_and_what_was_begun_is_gone(
    number: int, named: bool, checkpoint: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(located: Any, output: Path, *given: Any, **options: Any) -> Any:
        (output / "graph").mkdir(parents=True)
        raise OSError(number, os.strerror(number), str(output / "graph") if named else None)

    monkeypatch.setattr(exporting, "export", full)
    with pytest.raises(InvalidInputError, match=rf"exports cannot be kept in {cache} \({os.strerror(number)}\); set"):
        opened(checkpoint)
    assert [path.suffix for path in cache.iterdir() if path.name != "hashes"] == [".lock"]


def test_a_file_of_the_checkpoint_that_cannot_be_read_is_not_the_caches_fault(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*given: Any, **options: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(checkpoint / "config.json"))

    monkeypatch.setattr(exporting, "export", closed)
    with pytest.raises(PermissionError, match=r"config\.json"):
        opened(checkpoint)


def test_models_from_the_cache_travel(checkpoint: Path) -> None:
    with opened(checkpoint) as model:
        wanted = model.encode(TEXTS)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            np.testing.assert_array_equal(other.encode(TEXTS), wanted)


def test_a_subclass_is_made_as_it_says(checkpoint: Path) -> None:
    class Mine(EmbeddingModel):
        def __init__(self, path: Any, *, name: str, **options: Any) -> None:
            super().__init__(path, **options)
            self.name = name

    with Mine.from_checkpoint(checkpoint, name="mine", verify=False) as model:  # type: ignore[call-arg]
        assert (type(model), model.name) == (Mine, "mine")


def test_steps_are_shown_when_asked_for_and_else_only_on_a_terminal(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(checkpoint).close()
    assert capsys.readouterr() == ("", "")
    opened(checkpoint, pooling="cls", show_progress=True).close()
    out, err = capsys.readouterr()
    assert out == ""
    assert "exporting mine in fp32, once, into " in err
    opened(checkpoint, pooling="cls", show_progress=True).close()
    assert capsys.readouterr() == ("", "")


def test_the_names_of_options_are_everywhere_the_same() -> None:
    hints = get_type_hints(CheckpointOptions)
    assert set(hints) == {*get_type_hints(LoadOptions), *get_type_hints(OwnOptions), *EXPORTING}
    assert set(get_type_hints(ExportOptions)) == set(get_type_hints(Wanted)) - {"precision", "target"}
    text = inspect.getdoc(EmbeddingModel.from_checkpoint) or ""
    for name in EXPORTING:
        assert f"\n        {name}: " in text, name
    shared = {*get_type_hints(LoadOptions), "path_or_name"}
    own = [set(inspect.signature(kind).parameters) - shared for kind in (EmbeddingModel, Reranker, SparseModel)]
    own.append(set(inspect.signature(LateInteractionModel).parameters) - shared)
    assert set().union(*own) == set(get_type_hints(OwnOptions))


def test_adapters_of_several_by_name_and_by_role(tmp_path: Path, exports: list[str]) -> None:
    tasks = save_embedder(tmp_path / "tasks")
    roles = "query=retrieval.query,document=retrieval.passage"
    for _ in range(2):
        with opened(tasks) as plain, opened(tasks, adapter="separation") as one, opened(tasks, adapter=roles) as both:
            close(plain.encode(TEXTS), jina_vectors(tasks, TEXTS))
            close(one.encode(TEXTS), jina_vectors(tasks, TEXTS, "separation"))
            close(both.encode_query(TEXTS), jina_vectors(tasks, TEXTS, "retrieval.query", QUERY))
            close(both.encode_document(TEXTS), jina_vectors(tasks, TEXTS, "retrieval.passage", PASSAGE))
            made = both.path
    assert len(exports) == 3
    with pytest.raises(InvalidInputError, match="adapter='separation' is for checkpoints"):
        opened(made, adapter="separation")
    with pytest.raises(InvalidInputError, match="named for both, as query=NAME,document=NAME"):
        opened(tasks, adapter="query=separation")
    with pytest.raises(InvalidTypeError, match="adapter is int"):
        opened(tasks, adapter=3)
    with pytest.raises(InvalidInputError, match=r"no adapter 'merged'; there are retrieval\.query"):
        opened(tasks, adapter="merged")


def test_an_adapter_is_another_with_another_base(tmp_path: Path, exports: list[str]) -> None:
    lora = Made(tmp_path).queries_and_values()
    adapter = lora.save(r=8, lora_alpha=8)
    with opened(adapter) as model:
        before = model.encode(TEXTS)
    with opened(adapter) as model:
        np.testing.assert_array_equal(model.encode(TEXTS), before)
    assert len(exports) == 1

    def double(tensors: dict[str, Any]) -> None:
        tensors |= {name: 2 * value for name, value in tensors.items() if "attention" in name}

    change_tensors(lora.base, double)
    with opened(adapter) as model:
        assert np.abs(model.encode(TEXTS) - before).max() > 1e-3
    assert len(exports) == 2


def test_an_adapter_beside_a_model_may_name_itself(tmp_path: Path, exports: list[str]) -> None:
    lora = Made(tmp_path).queries_and_values()
    adapter = lora.save(r=8, lora_alpha=8)
    with opened(adapter) as model:
        wanted = model.encode(TEXTS)
    for file in adapter.iterdir():
        shutil.copy(file, lora.base / file.name)
    change_json(lora.base / "adapter_config.json", base_model_name_or_path=str(lora.base))
    for _ in range(2):
        with opened(lora.base) as model:
            np.testing.assert_array_equal(model.encode(TEXTS), wanted)
    assert len(exports) == 2


def test_adapters_that_are_each_others_bases_are_refused_by_name(tmp_path: Path, exports: list[str]) -> None:
    adapter = Made(tmp_path).queries_and_values().save(r=8, lora_alpha=8)
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    for one, base in ((adapter, other), (other, adapter)):
        change_json(one / "adapter_config.json", base_model_name_or_path=str(base))
    with pytest.raises(UnsupportedCheckpointError, match=r"the base '.*other' is an adapter itself"):
        opened(adapter)
