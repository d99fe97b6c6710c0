"""PhoBERT and BERTweet: tokenizers that transformers has in Python alone, and the rows that their word tables get."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_faults import built
from checkpoints import change_json, reference_vectors, save_sentence_transformers, write_json
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tolerances import close
from transformers import BertweetTokenizer, PhobertTokenizer, RobertaConfig, RobertaForSequenceClassification

from fastembed_rt import EmbeddingModel, Reranker
from fastembed_rt.manifest import SPARSE
from fastembed_rt_export.checkpoint import copied_rows
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tokenizer import phobert

ROWS = 250  # of the word table of tests' models
PROSE = (
    "Chúng_tôi là những nghiên_cứu_viên . Hà_Nội là thủ_đô của Việt_Nam , một thành_phố lớn bên sông Hồng . Tôi đang "
    "học tiếng Việt ở trường đại_học ; thầy giáo nói chậm , học_sinh nghe nhạc và đọc sách . Trời hôm_nay đẹp quá ! "
)
# Blanks that Python knows, blanks that it does not, ends of lines, letters that no merge has, what files and words mean
# by signs, special tokens.
PIECES = [
    *(
        " ",
        "\n",
        "\t",
        "\r\n",
        "\x1c",
        "\x85",
        "\xa0",
        "\u2028",
        "\u3000",
        "\u200b",
        "\ufeff",
        "\u180e",
        "@@",
        "@",
        "</w>",
    ),
    *(
        "<s>",
        "</s>",
        "<unk>",
        "<mask>",
        "<mask>\n",
        "\n<mask>",
        "東京",
        "😀",
        "é",
        "e\u0301",
        "_",
        ".",
        "học",
        "sinh",
        "V",
    ),
]
KINDS = [PhobertTokenizer, BertweetTokenizer]
TEXTS = ["", "x", "Hà_Nội đẹp quá !", "học\nsinh 東京 học_sinh", "một thành_phố lớn " * 30, "<mask> là @@ gì ?\n"]


def save_vocabulary(directory: Path, kept: float = 0.7) -> None:
    """Files of a small PhoBERT: of the pieces that its merges make, vocab.txt has only some."""
    made = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.train_from_iterator(
        [PROSE], trainers.BpeTrainer(vocab_size=220, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = json.loads(made.to_str())["model"]["merges"]
    directory.mkdir(exist_ok=True)
    codes, words = directory / "bpe.codes", directory / "vocab.txt"
    codes.write_text("".join(f"{a} {b} {500 - k}\n" for k, (a, b) in enumerate(merges)), encoding="utf-8")
    words.write_text("", encoding="utf-8")
    bare = PhobertTokenizer(str(words), str(codes))
    symbols = dict.fromkeys(symbol for a, b in merges for symbol in (a, b, a + b))
    pieces = dict.fromkeys(
        [*(p for word in PROSE.split() for p in bare.bpe(word).split()), *map(phobert.piece, symbols)]
    )
    draw = random.Random(0)
    words.write_text("".join(f"{piece} 1\n" for piece in pieces if draw.random() < kept), encoding="utf-8")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("phobert") / "files"
    save_vocabulary(directory)
    return directory


def reference(files: Path, kind: type[Any] = PhobertTokenizer, **options: Any) -> Any:
    return kind(str(files / "vocab.txt"), str(files / "bpe.codes"), **options)


def texts(number: int) -> Iterator[str]:
    draw = random.Random(1)
    words = PROSE.split()
    for _ in range(number):
        parts = [draw.choice(words) if draw.random() < 0.5 else draw.choice(PIECES) for _ in range(draw.randrange(9))]
        yield draw.choice(["", " "]).join(parts) * draw.randrange(1, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers(files: Path, kind: type[Any]) -> None:
    theirs = reference(files, kind)
    text, copied = phobert.convert(theirs, ROWS)
    ours = Tokenizer.from_str(text)
    assert len(copied) > 20
    assert set(copied) == {theirs.unk_token_id}
    used = set()
    for one in texts(3000):
        ids = ours.encode(one).ids
        used |= set(ids)
        assert [copied[n - ROWS] if n >= ROWS else n for n in ids] == theirs(one)["input_ids"], repr(one)
        assert list(phobert.as_there(ids, ours, theirs)) == theirs(one)["input_ids"], repr(one)
    assert len([n for n in used if n >= ROWS]) > 5
    pair = ours.encode("học_sinh", "đọc sách\n")
    assert list(phobert.as_there(pair.ids, ours, theirs)) == theirs("học_sinh", "đọc sách\n")["input_ids"]
    assert set(pair.type_ids) == {0}


@pytest.mark.parametrize("kind", KINDS)
def test_added_tokens_are_those_of_transformers(files: Path, kind: type[Any]) -> None:
    theirs = reference(files, kind, mask_token="<m>", extra_special_tokens=["<q>"])
    theirs.add_tokens(["ngôi_sao"])
    text, copied = phobert.convert(theirs, ROWS)
    ours = Tokenizer.from_str(text)
    for one in ("<q> ngôi_sao <m>", "xngôi_saox", "ngôi_sao\nlà <q>\n"):
        assert list(phobert.as_there(ours.encode(one).ids, ours, theirs)) == theirs(one)["input_ids"], one
    assert len(copied) == max(ours.get_vocab().values()) + 1 - ROWS


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    directory = save_sentence_transformers(
        tmp_path_factory.mktemp("phobert") / "checkpoint", "roberta", max_seq_length=40
    )
    use(directory, files)
    return directory


def use(directory: Path, files: Path, kind: str = "PhobertTokenizer") -> None:
    """Give a checkpoint these files in place of its own tokenizer."""
    (directory / "tokenizer.json").unlink(missing_ok=True)
    for name in ("vocab.txt", "bpe.codes"):
        shutil.copy(files / name, directory)
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": kind, "model_max_length": 40})


@pytest.mark.parametrize("options", [{}, {"precisions": ("int8",)}, {"targets": ("cpu", "cuda")}])
def test_vectors_are_those_of_sentence_transformers(checkpoint: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    export(str(checkpoint), ExportOptions(output=tmp_path / "model", **options))  # with the gate
    wanted = reference_vectors(checkpoint, TEXTS)
    with EmbeddingModel(tmp_path / "model") as model:
        if "precisions" in options:
            assert (model.encode(TEXTS) * wanted).sum(axis=1).min() > 0.98
        else:
            close(model.encode(TEXTS), wanted)
        np.testing.assert_array_equal(model.encode(TEXTS[3]), model.encode(TEXTS)[3])


def test_a_bertweet_is_read_from_its_own_files_beside_a_tokenizer_json(
    checkpoint: Path, files: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "source")
    use(source, files, "BertweetTokenizer")
    # As those on the hub have it; transformers takes its added tokens, and no more.
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    write_json(source / "tokenizer.json", {"added_tokens": [{"id": 3, "content": "<unk>", **added}], "model": None})
    made = export(str(source), ExportOptions(output=tmp_path / "model")).manifest
    assert made.parity["status"] == "passed"
    with EmbeddingModel(tmp_path / "model") as model:
        close(model.encode(TEXTS), reference_vectors(source, TEXTS))
    change_json(source / "tokenizer_config.json", normalization=True)
    with pytest.raises(UnsupportedCheckpointError, match="BertweetTokenizer is told to normalize tweets"):
        export(str(source), ExportOptions(output=tmp_path / "normalizing"))


def test_other_tools_open_the_directory(checkpoint: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    export(str(checkpoint), ExportOptions(output=tmp_path / "model", verify=False))
    opened = AutoTokenizer.from_pretrained(str(tmp_path / "model"))
    ours = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    for text in TEXTS:
        assert opened(text)["input_ids"] == ours.encode(text).ids
    rows = json.loads((tmp_path / "model" / "config.json").read_text())["vocab_size"]
    assert rows == max(ours.get_vocab().values()) + 1


def test_what_does_not_fit_is_refused(files: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none of the 40 rows"):
        phobert.convert(reference(files), 40)
    twice = shutil.copytree(files, tmp_path / "twice")
    with (twice / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("<unk> 1\nmới 1\n")
    with pytest.raises(CheckpointError, match="share ids"):
        phobert.convert(reference(twice), ROWS)
    disordered = shutil.copytree(files, tmp_path / "disordered")
    (disordered / "bpe.codes").write_text("a b 3\nabc ab 2\nab c 1\n")
    with pytest.raises(UnsupportedCheckpointError, match="order"):
        phobert.convert(reference(disordered), ROWS)
    with pytest.raises(UnsupportedCheckpointError, match="not built for sparse or traced"):
        copied_rows.add(replace(built(checkpoint), task=SPARSE), (3,))


def test_scores_are_those_of_sentence_transformers(files: Path, tmp_path: Path) -> None:
    shape = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 48}
    config = RobertaConfig(vocab_size=ROWS, max_position_embeddings=60, type_vocab_size=1, num_labels=1, **shape)
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "reranker")
    use(tmp_path / "reranker", files)
    export(str(tmp_path / "reranker"), ExportOptions(output=tmp_path / "model"))
    pairs = [(a, b) for a in TEXTS[1:4] for b in TEXTS[1:4]]
    wanted = CrossEncoder(str(tmp_path / "reranker"), device="cpu", max_length=40).predict(pairs)
    with Reranker(tmp_path / "model") as model:
        close(model.predict(pairs), wanted)
