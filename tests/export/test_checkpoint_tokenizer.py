"""Tokenizers of checkpoints: copied, converted or refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import (
    BERT_SPECIAL,
    LETTERS,
    WORDS,
    assert_vectors_agree,
    change_json,
    exported_vectors,
    reference_vectors,
    write_json,
)
from routed import router, save, transformer
from tokenizers import Tokenizer

from fastembed_rt import EmbeddingModel
from fastembed_rt_export.checkpoint.read import load
from fastembed_rt_export.errors import CheckpointError, MissingDependencyError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tokenizer import tokenizer_json


def cased(directory: Path) -> None:
    """Let the tokenizer keep the case, so that lower-casing is the checkpoint's own doing."""
    body = Tokenizer.from_file(str(directory / "tokenizer.json"))
    body.normalizer = type(body.normalizer)(lowercase=False)
    body.save(str(directory / "tokenizer.json"))


def test_do_lower_case_goes_into_tokenizer_json(chain: Path, tmp_path: Path) -> None:
    cased(chain)
    kept = exported_vectors(chain, tmp_path / "cased")
    change_json(chain / "sentence_bert_config.json", do_lower_case=True)
    assert_vectors_agree(chain, tmp_path / "lower")
    assert np.abs(reference_vectors(chain) - kept).max() > 1e-3
    tokenizer = Tokenizer.from_file(str(tmp_path / "lower" / "tokenizer.json"))
    assert tokenizer.encode("The CAT").ids == tokenizer.encode("the cat").ids


@pytest.mark.parametrize("normalizer", ["lower-casing", "none"])
def test_do_lower_case_leaves_a_tokenizer_that_lower_cases_as_it_is(
    chain: Path, tmp_path: Path, normalizer: str
) -> None:
    if normalizer == "none":
        change_json(chain / "tokenizer.json", normalizer=None)
    before = (chain / "tokenizer.json").read_text()
    change_json(chain / "sentence_bert_config.json", do_lower_case=True)
    assert_vectors_agree(chain, tmp_path / "out")
    assert ((tmp_path / "out" / "tokenizer.json").read_text() == before) is (normalizer != "none")


def test_tokenizer_json_is_copied_byte_by_byte(chain: Path, tmp_path: Path) -> None:
    export(str(chain), ExportOptions(output=tmp_path / "out", verify=False))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (chain / "tokenizer.json").read_bytes()


@pytest.fixture
def vocabulary_only(chain: Path) -> Path:
    """A checkpoint with BERT's vocab.txt and no tokenizer.json."""
    pieces = dict.fromkeys([*BERT_SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])
    (chain / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (chain / "tokenizer.json").unlink()
    write_json(chain / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    return chain


def test_a_vocabulary_is_converted_by_transformers(vocabulary_only: Path, tmp_path: Path) -> None:
    assert_vectors_agree(vocabulary_only, tmp_path / "out")


def test_a_vocabulary_without_transformers_says_what_to_install(
    vocabulary_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load(vocabulary_only, "vocabulary")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"has no tokenizer\.json; install transformers"):
        tokenizer_json.load(checkpoint)


def test_a_checkpoint_without_any_tokenizer_is_refused(chain: Path) -> None:
    (chain / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks the checkpoint's vocabulary files: there is no tokenizer\.json"):
        tokenizer_json.load(load(chain, "chain"))


@pytest.mark.parametrize(
    ("name", "kept", "absent"),
    [
        ("Bert", "", "vocab.txt"),
        ("DistilBert", "", "vocab.txt"),
        ("MPNet", "", "vocab.txt"),
        ("Bert", "vocab.json", "vocab.txt"),  # another class's
        ("XLMRoberta", "", "sentencepiece.bpe.model"),
        ("T5", "", "spiece.model"),
        ("DebertaV2", "", "spm.model"),
        ("Roberta", "", "merges.txt and no vocab.json"),
        ("Qwen2", "vocab.txt", "merges.txt and no vocab.json"),
        ("Pegasus", "", "other vocabulary"),  # a class that fails without one
    ],
)
def test_a_checkpoint_without_the_vocabulary_of_its_class_is_refused(
    chain: Path, name: str, kept: str, absent: str
) -> None:
    (chain / "tokenizer.json").unlink()
    write_json(chain / "tokenizer_config.json", {"tokenizer_class": f"{name}Tokenizer"})
    if kept.endswith(".json"):
        write_json(chain / kept, {letter: index for index, letter in enumerate(LETTERS)})
    elif kept:
        (chain / kept).write_text("#version: 0.2\n")
    with pytest.raises(CheckpointError) as caught:
        tokenizer_json.load(load(chain, "chain"))
    message = str(caught.value)
    assert f"{chain} lacks the checkpoint's vocabulary files: there is no tokenizer.json and no {absent}" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["Bert", "Roberta", "T5", "XLMRoberta", "Gemma", "Splinter"])
def test_a_tokenizer_json_saved_without_a_vocabulary_is_refused(chain: Path, name: str) -> None:
    transformers = pytest.importorskip("transformers")
    (chain / "tokenizer.json").unlink()
    getattr(transformers, f"{name}Tokenizer")().backend_tokenizer.save(str(chain / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"has no words, its tokens are \d+ in all beside a word table of \d+ "):
        tokenizer_json.load(load(chain, "chain"))


def test_by_name_a_checkpoint_without_its_vocabulary_is_refused_and_leaves_nothing_in_the_cache(
    chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "cache"))
    (chain / "tokenizer.json").unlink()
    write_json(chain / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    with pytest.raises(CheckpointError, match="lacks the checkpoint's vocabulary files"):
        EmbeddingModel.from_checkpoint(chain, precision="fp32", verify=False)
    assert not list((tmp_path / "cache").rglob("*.onnx"))


def test_a_queries_encoder_without_its_vocabulary_is_refused(tmp_path: Path) -> None:
    route = router(transformer(tmp_path / "one"), transformer(tmp_path / "two", "roberta"), default_route="document")
    directory = save(tmp_path / "routed", route)
    folder = next(folder for folder in directory.rglob("query_0*") if folder.is_dir())
    (folder / "tokenizer.json").unlink()
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer"})
    with pytest.raises(CheckpointError, match=f"{folder.name} lacks the checkpoint's vocabulary files"):
        export(str(directory), ExportOptions(output=tmp_path / "out", verify=False))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff\xfe", b"[]", b'{"model": {"type": "Unheard"}}'])
def test_a_tokenizer_json_that_cannot_be_read_is_refused(chain: Path, content: bytes) -> None:
    (chain / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        tokenizer_json.load(load(chain, "chain"))


def test_a_template_with_a_token_that_has_no_id_is_refused(chain: Path) -> None:
    """The library reads it, and panics at the first text."""
    file = chain / "tokenizer.json"
    body = json.loads(file.read_text())
    body["post_processor"]["special_tokens"] = {}
    file.write_text(json.dumps(body))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be used by tokenizers"):
        tokenizer_json.load(load(chain, "chain"))


def test_added_tokens_are_one_token_each(chain: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(chain / "tokenizer.json"))
    tokenizer.add_tokens(["fastembedding", "[NEW]"])
    tokenizer.save(str(chain / "tokenizer.json"))
    texts = ["a fastembedding runs", "[NEW] fastembedding[NEW]", "FastEmbedding"]
    assert_vectors_agree(chain, tmp_path / "out", texts)
    assert len(Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode("fastembedding").ids) == 3


@pytest.mark.parametrize(("pad_token", "expected"), [("[PAD]", 0), ({"content": "[MASK]"}, 4), ("[NONE]", 101), (5, 7)])
def test_the_pad_id_is_the_tokenizers_else_the_configs(chain: Path, pad_token: object, expected: int) -> None:
    change_json(chain / "tokenizer_config.json", pad_token=pad_token)
    change_json(chain / "config.json", pad_token_id=7)
    assert tokenizer_json.load(load(chain, "chain")).pad_token_id == expected
