"""Every tokenizer class that encoders have: the exported file gives AutoTokenizer's ids, or the export refuses it.

`make slow` compares 26,000 texts a class, and the real checkpoints in FASTEMBED_RT_REAL.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import transformers
from checkpoints import assert_vectors_agree, save_sentence_transformers
from tokenizer_cases import CASES, REFUSED, SETTINGS, real_cases
from tokenizer_files import Case, Described, compare, write
from tokenizer_texts import HAS_DATA, all_texts, nasty_texts, some_texts
from transformers.models.auto import tokenization_auto
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from fastembed_rt import native
from fastembed_rt.text.unigram import unigram
from fastembed_rt_export.errors import CheckpointError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.gate import parity, tokens
from fastembed_rt_export.tokenizer import class_names, set_as_said, tokenizer_json
from fastembed_rt_export.tokenizer.rules import CLASSES

needs_data = pytest.mark.skipif(not HAS_DATA, reason="no data folder; FASTEMBED_RT_DATA says where it is")
# Classes whose files on the hub give other ids than the class: the comparison would see them taken as they are.
TELLING = ["XLMRoberta", "GTE", "Camembert", "DebertaV2", "BigBird", "RemBert", "Llama", "GPTNeoX", "Funnel"]


def with_settings() -> list[Any]:
    """Every case, and each of the settings that its class reads."""
    found = [pytest.param(case, {}, id=f"{case.title}, {case.source}, {case.model_type}") for case in CASES]
    trained = {case.title: case for case in CASES}  # the last of a title
    for title, several in SETTINGS.items():
        found += [pytest.param(trained[title], one, id=f"{title}, {one}") for one in several]
    return found


def assert_equal(directory: Path, texts: list[str]) -> None:
    found = compare(directory, texts)
    assert not found.refused
    assert found.texts == len(texts)
    assert list(found.different) == []


@needs_data
@pytest.mark.parametrize(("case", "said"), with_settings())
def test_ids_of_a_class_are_transformers(tmp_path: Path, case: Case, said: dict[str, Any]) -> None:
    kin = class_names.named(case.settings, {"model_type": case.model_type}) != case.title
    assert_equal(case.at(tmp_path, **said), some_texts()[:: 5 if said or kin else 1])


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *real_cases()], ids=lambda case: f"{case.title}, {case.source}")
def test_ids_of_a_class_are_transformers_on_all_texts(tmp_path: Path, case: Case) -> None:
    assert_equal(case.at(tmp_path), all_texts())


@needs_data
@pytest.mark.parametrize("title", TELLING)
def test_these_texts_tell_a_file_that_is_taken_as_it_is(
    tmp_path: Path, title: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(set_as_said, "set_up", lambda *_: None)
    case = next(case for case in CASES if case.title == title)
    assert compare(case.at(tmp_path), nasty_texts()).different


@needs_data
@pytest.mark.parametrize("title", ["XLMRoberta", "Camembert", "T5", "DebertaV2", "Albert", "XLNet", "BigBird"])
def test_files_of_these_classes_are_known_in_c(tmp_path: Path, title: str) -> None:
    case = [case for case in CASES if case.title == title][-1]
    made = tokenizer_json.load(Described(case.at(tmp_path)))  # type: ignore[arg-type]
    assert native.unigram() is None or unigram(made.text.encode()) is not None


@pytest.mark.parametrize(("model_type", "name"), REFUSED.items())
def test_a_class_that_is_not_known_is_refused_by_name(tmp_path: Path, model_type: str, name: str) -> None:
    write(tmp_path / "tokenizer.json", EMPTY)
    write(tmp_path / "config.json", {"model_type": model_type})
    with pytest.raises(UnsupportedCheckpointError, match=rf"transformers tokenizes with {name}Tokenizer, which"):
        tokenizer_json.load(Described(tmp_path))  # type: ignore[arg-type]


EMPTY = {"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}


@pytest.mark.parametrize("named", ["XLMRobertaTokenizer", "T5TokenizerFast"])
def test_a_file_that_its_class_cannot_take_is_refused(tmp_path: Path, named: str) -> None:
    write(tmp_path / "tokenizer.json", EMPTY)
    write(tmp_path / "config.json", {"model_type": "bert"})
    write(tmp_path / "tokenizer_config.json", {"tokenizer_class": named})
    with pytest.raises(CheckpointError, match=r"cannot be made from this tokenizer.json \(its model has no pieces"):
        tokenizer_json.load(Described(tmp_path))  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError, AttributeError)):
        transformers.AutoTokenizer.from_pretrained(str(tmp_path))


@needs_data
def test_vectors_of_texts_that_a_class_reads_otherwise_are_the_references(tmp_path: Path) -> None:
    chain = save_sentence_transformers(tmp_path / "chain", "xlm-roberta", vocab_size=4000)
    case = next(case for case in CASES if case.title == "XLMRoberta")
    case.lay(chain)
    write(chain / "tokenizer_config.json", {**case.settings, "model_max_length": 32})
    assert_vectors_agree(chain, tmp_path / "out", ["The cat sat. ", " a \t b\n", "a\x0bb <mask> c", "", "▁ ▁"])


@pytest.mark.parametrize(("version", "told"), [("5.12.1", True), ("5.16.0", False), ("4.57.6", False)])
def test_where_tokens_differ_an_older_transformers_is_named(
    monkeypatch: pytest.MonkeyPatch, version: str, told: bool
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    rows = [tokens.Row((1, 2), 2)], [tokens.Row((1, 3), 2)]
    with pytest.raises(ParityError, match="the first difference at token 1") as caught:
        tokens.check([parity.Case("some", "a text")], *rows, str, str, "the reference")
    assert (f"transformers {version} makes some tokenizers in other ways" in str(caught.value)) is told


# --- which class it is -----------------------------------------------------------------------------------------------

NEWEST = transformers.__version__.startswith("5.24.")  # whose tables these are
TYPES = [
    "bert",
    "xlm-roberta",
    "qwen2",
    "qwen3",
    "modernbert",
    "llama",
    "mistral",
    "gte",
    "new",
    "t5",
    "convbert",
    "umt5",
]
NAMED = [
    *(
        None,
        "PreTrainedTokenizerFast",
        "PreTrainedTokenizer",
        "TokenizersBackend",
        "NoSuchTokenizer",
        "T5TokenizerFast",
    ),
    *("BertTokenizer", "XLMRobertaTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast", "RobertaTokenizer"),
    *("Qwen2Tokenizer", "GPT2TokenizerFast", "BertJapaneseTokenizer", "LongformerTokenizer", "ElectraTokenizerFast"),
]


def short(found: Any) -> str:
    """Name of a class as the tables have it."""
    as_it_is = (None, TokenizersBackend, transformers.PythonBackend, transformers.ParakeetTokenizer)
    name = class_names.FILE if found in as_it_is else str(found.__name__).removesuffix("Tokenizer")
    return class_names.ALIASES.get(name, name)


@pytest.mark.skipif(not NEWEST, reason="the tables are those of transformers 5.24")
def test_classes_of_model_types_are_transformers() -> None:
    names = {
        model_type: class_names.FILE if name in (None, "TokenizersBackend", "MistralCommonBackend") else name
        for model_type, name in tokenization_auto.TOKENIZER_MAPPING_NAMES.items()
        if model_type != "fastspeech2_conformer"  # which has one where a package for speech is installed
    }
    expected = {key: name.removesuffix("Fast").removesuffix("Tokenizer") for key, name in names.items()}
    assert expected == class_names.OF_TYPES
    assert class_names.DISBELIEVED == tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS


@pytest.mark.skipif(not NEWEST, reason="the tables are those of transformers 5.24")
def test_every_class_of_transformers_is_in_one_of_the_tables() -> None:
    """Built anew as the rules say, refused, or none of its own."""
    others, python = class_names.OTHERS, class_names.IN_PYTHON
    for registered in set(tokenization_auto.TOKENIZER_MAPPING_NAMES.values()) - {None, "MistralCommonBackend"}:
        found = tokenization_auto.tokenizer_class_from_name(registered)
        name = short(found)
        assert (name in python) is not issubclass(found, TokenizersBackend), registered
        assert name in python or name in others or name in CLASSES or name == class_names.FILE, registered
    assert not (others & python) and not (others | python) & CLASSES.keys()


@pytest.mark.parametrize("model_type", TYPES)
@pytest.mark.parametrize("place", ["tokenizer_config.json", "config.json"])
def test_the_class_is_the_one_that_auto_tokenizer_takes(
    tmp_path: Path, model_type: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = transformers.PreTrainedTokenizerBase
    monkeypatch.setattr(base, "from_pretrained", classmethod(lambda cls, *_, **__: cls))
    for named in NAMED:
        for file in ("Metaspace", *(["ByteLevel"] if "Llama" in str(named) else [])):
            said = {} if named is None else {"tokenizer_class": named}
            in_config = place == "config.json"
            if in_config and named == "NoSuchTokenizer":
                continue  # an error in transformers
            config = {"model_type": model_type, **(said if in_config else {})}
            settings = {} if in_config else said
            write(tmp_path / "config.json", config)
            write(tmp_path / "tokenizer_config.json", settings)
            write(tmp_path / "tokenizer.json", {"decoder": {"type": file}})
            found = class_names.find(settings, config, byte_level=file == "ByteLevel")
            assert found == short(transformers.AutoTokenizer.from_pretrained(str(tmp_path))), (named, file)


@needs_data
@pytest.mark.parametrize(("version", "kept"), [("4.57.6", True), ("5.24.0", False), (None, False), ("main", False)])
def test_the_installed_version_decides_whether_a_class_builds_anew(
    tmp_path: Path, version: str | None, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr("importlib.metadata.version", installed)
    case = next(case for case in CASES if case.title == "XLMRoberta")
    before = (case.at(tmp_path) / "tokenizer.json").read_text(encoding="utf-8")
    assert (tokenizer_json.load(Described(tmp_path)).text == before) is kept  # type: ignore[arg-type]
