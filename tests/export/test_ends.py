"""add_bos_token and add_eos_token: texts end as their checkpoint says, as classes of transformers 4 let it decide."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import transformers
from checkpoints import TEXTS, change_json, reference_vectors, save_sentence_transformers, write_json
from tokenizer_files import Described
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tolerances import close

from fastembed_rt import EmbeddingModel
from fastembed_rt_export.errors import ParityError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tokenizer import tokenizer_json

CODE = Path(__file__).parents[1] / "references" / "tokenization_qwen.py"
OWN = {"auto_map": {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer", "tokenization_qwen.Qwen2TokenizerFast"]}}
BOS, EOS, BOTH = {"add_bos_token": True}, {"add_eos_token": True}, {"add_bos_token": True, "add_eos_token": True}
NO_BOS, NEITHER = {"add_bos_token": False}, {"add_bos_token": False, "add_eos_token": False}
FIRST, LAST, AROUND, NOTHING, BYTES = "<s> $A", "$A </s>", "<s> $A </s>", "$A", "bytes"
OWN_TOKENIZER = """
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer


class Fast(Qwen2Tokenizer):
    def __init__(self, **given):
        super().__init__(**given{})
"""
# model_type, class, of tokenizer.json, of tokenizer_config.json -> what transformers 4.57.6 puts around a text.
# What these are on the hub: e5-mistral-7b-instruct, SFR-Embedding-Mistral (Llama's class, eos said); Qwen3-Embedding (a
# class that reads neither). gte-Qwen2-instruct and stella_en_1.5B_v5 are below (code of their own, eos said).
TABLE = [
    ("mistral", "Llama", FIRST, EOS, "<s> </s>"),
    ("mistral", "Llama", FIRST, BOTH, "<s> </s>"),
    ("mistral", "LlamaFast", NOTHING, BOTH, "<s> </s>"),
    ("mistral", "Llama", AROUND, BOTH, "<s> </s>"),
    ("mistral", "Llama", FIRST, {**BOS, "add_eos_token": False}, "<s>"),
    ("mistral", "Llama", FIRST, NEITHER, ""),
    ("mistral", "Llama", FIRST, NO_BOS, ""),
    ("mistral", "Llama", FIRST, {**NO_BOS, **EOS}, "</s>"),
    ("llama", "Llama", BYTES, EOS, "<s> </s>"),
    ("gemma", "Gemma", FIRST, EOS, "<s> </s>"),
    ("gemma3_text", "Gemma", FIRST, BOTH, "<s> </s>"),
    ("cohere", "CohereFast", FIRST, BOTH, "<s> </s>"),
    ("gpt_neox", "GPTNeoX", BYTES, EOS, "</s>"),
    ("gpt_neox", "GPTNeoX", BYTES, BOTH, "<s> </s>"),
    # Classes that never read them.
    ("qwen2", "Qwen2", BYTES, BOTH, ""),
    ("qwen3", "Qwen2", LAST, NEITHER, "</s>"),
    ("qwen3", "Qwen2", BYTES, EOS, ""),
    ("llama", "PreTrainedFast", FIRST, BOTH, "<s>"),
    ("mistral", "PreTrainedFast", LAST, NEITHER, "</s>"),
    ("gpt2", "GPT2", BYTES, BOTH, ""),
]
# With nothing said, transformers 5 takes the file, as it saves it: with nothing said.
SILENT = [
    ("mistral", "Llama", FIRST, "<s>"),
    ("mistral", "Llama", AROUND, "<s> </s>"),
    ("mistral", "Llama", LAST, "</s>"),
    ("llama", "PreTrainedFast", AROUND, "<s> </s>"),
    ("qwen3", "Qwen2", LAST, "</s>"),
]


def save(directory: Path, model_type: str, named: str, template: str, said: dict[str, Any]) -> Path:
    """As much of a checkpoint as its tokenizer needs; its words are letters."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    letters = [*pre_tokenizers.ByteLevel.alphabet(), "▁", *(f"<0x{code:02X}>" for code in range(256))]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys([*special, *sorted(letters)]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if model_type in ("mistral", "gemma", "gemma3_text") or named == "Llama":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(special)
    tokenizer.post_processor = around(template)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(directory / "config.json", {"model_type": model_type, "vocab_size": len(vocabulary)})
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    kind = named.removesuffix("Fast") + "Tokenizer" + ("Fast" if named.endswith("Fast") else "")
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": kind, **names, **said})
    return directory


def around(template: str) -> Any:
    if template == BYTES:
        return processors.ByteLevel(trim_offsets=False)
    pair = f"{template} {template.replace('$A', '$B:1').replace('<s>', '<s>:1').replace('</s>', '</s>:1')}"
    return processors.TemplateProcessing(single=template, pair=pair, special_tokens=[("<s>", 1), ("</s>", 2)])


def made(directory: Path) -> tuple[Tokenizer, tuple[str, ...]]:
    """The exported tokenizer, and what is noted."""
    found = tokenizer_json.load(Described(directory))  # type: ignore[arg-type]
    return Tokenizer.from_str(found.text), found.notes


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BPE model of sentencepiece."""
    directory = tmp_path_factory.mktemp("pieces")
    words = [f"the cat sleeps under tree {number}" for number in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words),
        model_prefix=str(directory / "m"),
        vocab_size=310,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    return directory / "m.model"


def transformers_own(directory: Path, **options: Any) -> Any:
    return transformers.AutoTokenizer.from_pretrained(str(directory), **options)


@pytest.mark.parametrize(("model_type", "named", "template", "said", "wanted"), TABLE)
def test_texts_stand_between_the_tokens_that_their_checkpoint_asks_for(
    tmp_path: Path, model_type: str, named: str, template: str, said: dict[str, Any], wanted: str
) -> None:
    directory = save(tmp_path, model_type, named, template, said)
    tokenizer, notes = made(directory)
    assert " ".join(tokenizer.encode("").tokens) == wanted
    plain = transformers_own(directory)
    asked = tokenizer_json.asked_ends(Described(directory))  # type: ignore[arg-type]
    theirs = plain if asked is None else transformers_own(directory, **asked.arguments)
    for text in ("", "a", "b a", "a</s>b"):
        assert tokenizer.encode(text).ids == theirs(text)["input_ids"]
    assert tokenizer.encode("a", "b").ids == theirs("a", "b")["input_ids"]
    assert bool(notes) == (plain("")["input_ids"] != theirs("")["input_ids"])


@pytest.mark.parametrize(("model_type", "named", "template", "wanted"), SILENT)
def test_where_nothing_is_said_the_file_decides(
    tmp_path: Path, model_type: str, named: str, template: str, wanted: str
) -> None:
    directory = save(tmp_path, model_type, named, template, {})
    tokenizer, notes = made(directory)
    assert " ".join(tokenizer.encode("").tokens) == wanted
    assert tokenizer.encode("a").ids == transformers_own(directory)("a")["input_ids"]
    assert notes == ()


def test_settings_that_transformers_saves_again_say_nothing(tmp_path: Path) -> None:
    directory = save(tmp_path / "made-with-4", "mistral", "Llama", FIRST, BOTH)
    transformers_own(directory).save_pretrained(tmp_path / "again")
    assert not BOTH.keys() & json.loads((tmp_path / "again" / "tokenizer_config.json").read_text()).keys()


def test_a_token_that_is_not_named_stands_nowhere(tmp_path: Path) -> None:
    directory = save(tmp_path, "mistral", "PreTrainedFast", FIRST, BOTH)
    change_json(directory / "tokenizer_config.json", "bos_token", tokenizer_class="GPTNeoXTokenizer", bos_token=None)
    assert made(directory)[0].encode("").tokens == transformers_own(directory, **BOTH).convert_ids_to_tokens([2])


@pytest.mark.parametrize(
    ("said", "wanted"),
    [({}, "<s>"), (EOS, "<s> </s>"), (BOTH, "<s> </s>"), (NEITHER, ""), (NO_BOS, ""), ({**NO_BOS, **EOS}, "</s>")],
)
def test_a_sentencepiece_model_without_a_tokenizer_json_is_read_likewise(
    tmp_path: Path, pieces: Path, said: dict[str, Any], wanted: str
) -> None:
    """What transformers 4.57.6 puts around a text."""
    directory = save(tmp_path, "mistral", "Llama", FIRST, said)
    (directory / "tokenizer.json").unlink()
    shutil.copy(pieces, directory / "tokenizer.model")
    tokenizer, notes = made(directory)
    assert " ".join(tokenizer.encode("").tokens) == wanted
    asked = tokenizer_json.asked_ends(Described(directory))  # type: ignore[arg-type]
    assert asked is not None
    assert tokenizer.encode("the cat").ids == transformers_own(directory, **asked.arguments)("the cat")["input_ids"]
    assert bool(notes) == (tokenizer.encode("").ids != transformers_own(directory)("")["input_ids"])


# --- code of the checkpoint's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [BYTES, NOTHING, LAST])
@pytest.mark.parametrize("said", [EOS, {"add_eos_token": False}, BOTH], ids=str)
@pytest.mark.parametrize("of", ["", "Alibaba-NLP/gte-Qwen2-7B-instruct--"])
def test_known_code_ends_texts_as_it_would_if_it_were_run(tmp_path: Path, template: str, said: Any, of: str) -> None:
    directory = save(tmp_path, "qwen2", "Qwen2", template, {**said, **OWN})
    shutil.copy(CODE, directory)
    theirs = transformers_own(directory, trust_remote_code=True, **said)
    assert type(theirs).__name__ == "Qwen2TokenizerFast"
    names = [of + name for name in OWN["auto_map"]["AutoTokenizer"]]
    change_json(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": names})
    tokenizer, _ = made(directory)
    for text in ("", "a", "b a"):
        assert tokenizer.encode(text).ids == theirs(text)["input_ids"]
    assert tokenizer.encode("a", "b").ids == theirs("a", "b")["input_ids"]


def save_decoder(directory: Path, model_type: str, named: str, template: str, said: dict[str, Any]) -> Path:
    """A decoder that pools its last token, with such a tokenizer."""
    chain = save_sentence_transformers(directory, model_type, pooling="lasttoken", vocab_size=520)
    other = save(directory.with_name("tokenizer"), model_type, named, template, said)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(other / name, chain / name)
    return chain


def with_arguments(directory: Path, said: dict[str, Any]) -> Any:
    """What sentence-transformers gives who passes the settings."""
    from sentence_transformers import SentenceTransformer

    options: Any = {"device": "cpu", "local_files_only": True, "trust_remote_code": True, "processor_kwargs": said}
    return SentenceTransformer(str(directory), **options).encode(TEXTS[1:])


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("model_type", "named", "template", "said"),
    [("qwen2", "Qwen2", BYTES, {**EOS, **OWN}), ("mistral", "Llama", FIRST, BOTH)],
)
def test_vectors_are_those_of_the_last_token_that_is_asked_for(
    tmp_path: Path, model_type: str, named: str, template: str, said: dict[str, Any], trust: bool
) -> None:
    chain = save_decoder(tmp_path / "chain", model_type, named, template, said)
    shutil.copy(CODE, chain)
    wanted = with_arguments(chain, {key: value for key, value in said.items() if key != "auto_map"})
    described = export(str(chain), ExportOptions(output=tmp_path / "out", trust_remote_code=trust)).manifest
    assert described.parity["status"] == "passed"
    assert any("read before transformers 5, which puts others there" in note for note in described.notes)
    with EmbeddingModel(tmp_path / "out") as model:
        found = model.encode(TEXTS[1:])
    close(found, wanted)
    assert (np.abs(found - reference_vectors(chain, TEXTS[1:])).max(axis=1) > 0.01).all()


def test_code_that_is_not_known_is_refused_unless_it_is_compared_with(tmp_path: Path) -> None:
    own = {"auto_map": {"AutoTokenizer": ["own.Slow", "own.Fast"]}}
    chain = save_decoder(tmp_path / "chain", "qwen2", "Qwen2", BYTES, own)
    options = ExportOptions(output=tmp_path / "out")
    with pytest.raises(UnsupportedCheckpointError, match=r"its tokenizer \(own\.Fast\), which is not run"):
        export(str(chain), options)
    (chain / "own.py").write_text(OWN_TOKENIZER.format(""), encoding="utf-8")
    trusting = replace(options, trust_remote_code=True)
    assert export(str(chain), trusting).manifest.parity["status"] == "passed"
    (chain / "own.py").write_text(OWN_TOKENIZER.format(", add_eos_token=True"), encoding="utf-8")
    with pytest.raises(ParityError, match="tokenized differently"):
        export(str(chain), replace(trusting, force=True))
