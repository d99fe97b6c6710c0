"""Rerankers as they are published, without sentence-transformers' files: the templates and words that the page on other
heads gives them make the scores of their cards and libraries."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from causal_rerankers import LOGITS, MORE, PROMPT, save_causal, token_id
from checkpoints import change_json, change_tensors
from cross_encoders import Pair, exported_scores, reference_scores

from fastembed_rt import Reranker
from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")

PAGE = (Path(__file__).parents[2] / "docs" / "other-heads.md").read_text(encoding="utf-8")
SECTION = PAGE[PAGE.index("### Templates of published rerankers") :].split("\n### ")[0]
BLOCKS = re.findall(r"^```\n(.*?)^```$", SECTION, re.DOTALL | re.MULTILINE)
QWEN3, MXBAI, BGE, WRITER = BLOCKS
PAIRS = [pair for pair in MORE if not any(text.endswith("\n") for text in pair) and max(map(len, pair)) < 200]
ASKED = "Given a web search query, retrieve relevant passages that answer the query"

Ids = list[int]
Encode = Callable[[str], Ids]


# --- what cards and libraries compute --------------------------------------------------------------------------------


def qwen3_ids(encode: Encode, pair: Pair, prompt: str | None) -> Ids:
    """Qwen3-Reranker's card: what is around the pair and the pair, each by itself."""
    before = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    text = f"<Instruct>: {ASKED if prompt is None else prompt}\n<Query>: {pair[0]}\n<Document>: {pair[1]}"
    return [*encode(before), *encode(text), *encode(after)]


def mxbai_ids(encode: Encode, pair: Pair, prompt: str | None) -> Ids:
    """MxbaiRerankV2: the ids of parts, joined."""
    before = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    query = f"query: {pair[0]}" if prompt is None else f"instruction: {prompt}\nquery: {pair[0]}"
    parts = [f"{before}<|im_start|>user\n", query, "\n", f"document: {pair[1]}", "\n", task]
    return [token for part in [*parts, "<|im_end|>\n<|im_start|>assistant\n"] for token in encode(part)]


def bge_ids(encode: Encode, pair: Pair, prompt: str | None) -> Ids:
    """FlagEmbedding's FlagLLMReranker: the first token of texts and the ids of parts, joined."""
    asked = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by providing a "
        "prediction of either 'Yes' or 'No'."
    )
    parts = [f"A: {pair[0]}", "\n", f"B: {pair[1]}", "\n", asked if prompt is None else prompt]
    return [*encode("<|endoftext|>"), *(token for part in parts for token in encode(part))]


def logits(source: Path, pairs: list[Pair], ids_of: Any, words: Any, prompt: str | None) -> npt.NDArray[np.float32]:
    """The logit of one word behind each pair, or of one less another's."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForCausalLM.from_pretrained(source).float().eval()
    found = []
    for pair in pairs:
        ids = ids_of(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"], pair, prompt)
        with torch.inference_mode():
            last = model(torch.tensor([ids])).logits[0, -1]
        found.append(
            sum(sign * float(last[token_id(source, word)]) for word, sign in zip(words, (1, -1), strict=False))
        )
    return np.array(found, dtype=np.float32)


# --- as the page tells -----------------------------------------------------------------------------------------------

# The test tokenizer has few words: "Yes" is not among them.
KINDS: dict[str, Any] = {
    "qwen3": ("qwen3", QWEN3, None, ("yes", "no"), qwen3_ids),
    "mxbai": ("qwen2", MXBAI, '("1", "0")', ("1", "0"), mxbai_ids),
    "bge": ("gemma", BGE, '("yes", None)', ("yes",), bge_ids),
}


def prepared(kind: str, source: Path) -> Path:
    """A directory as it is published, with what the page puts beside it."""
    model_type, template, words, _, _ = KINDS[kind]
    tokenizer = {"bos_token": "<|endoftext|>", "pad_token": "<|im_end|>"} if kind == "bge" else None
    save_causal(source, model_type, template=None, tokenizer=tokenizer, max_position_embeddings=700)
    (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    change_json(source / "tokenizer_config.json", model_max_length=600)
    if words is not None:
        said = 'Path("bge-reranker-v2-gemma"), ("Yes", None)'
        assert said in WRITER
        exec(compile(WRITER.replace(said, f"Path({str(source)!r}), {words}"), "other-heads.md", "exec"), {})
    return source


@pytest.mark.parametrize("kind", KINDS)
def test_the_pages_templates_give_the_scores_of_cards_and_libraries(tmp_path: Path, kind: str) -> None:
    source = prepared(kind, tmp_path / "source")
    *_, words, ids_of = KINDS[kind]
    made = export(str(source), ExportOptions(output=tmp_path / "made", task="reranking")).manifest
    assert made.parity["status"] == "passed"
    for prompt in (None, PROMPT):
        wanted = logits(source, PAIRS, ids_of, words, prompt)
        assert np.ptp(wanted) > 0.1
        with Reranker(tmp_path / "made") as model:
            found = model.predict(PAIRS, prompt=prompt, activation="identity")
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)
            scores = model.predict(PAIRS, prompt=prompt)
            np.testing.assert_allclose(scores, 1 / (1 + np.exp(-wanted)), rtol=1e-5, atol=1e-5)
        reference = reference_scores(source, PAIRS, prompt=prompt, activation_fn=LOGITS)
        np.testing.assert_allclose(found, reference, rtol=1e-5, atol=2e-5)


def test_a_long_pair_is_cut_where_qwens_card_cuts_it(tmp_path: Path) -> None:
    """Behind the text of the pair, for which the card leaves what the rest of the prompt does not need."""
    source = prepared("qwen3", tmp_path / "source")
    limit = 300

    def cut(encode: Encode, pair: Pair, prompt: str | None) -> Ids:
        whole, rest = qwen3_ids(encode, pair, prompt), qwen3_ids(encode, ("", ""), prompt)
        asked = encode(f"<Instruct>: {ASKED}\n<Query>: \n<Document>: ")
        end = encode("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
        before = len(rest) - len(asked) - len(end)
        kept = whole[before : len(whole) - len(end)][: limit - before - len(end)]
        return [*whole[:before], *kept, *end]

    pairs = [("where does the dog run?", "the dog runs " * 100), ("the red house " * 100, "a cat")]
    wanted = logits(source, pairs, cut, ("yes", "no"), None)
    export(str(source), ExportOptions(output=tmp_path / "made", task="reranking", verify=False))
    with Reranker(tmp_path / "made", max_length=limit) as model:
        found = model.predict(pairs, activation="identity")
        assert model.stats.truncated == len(pairs)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_narrow_precisions_of_them_pass_the_gate(tmp_path: Path, kind: str) -> None:
    source = prepared(kind, tmp_path / "source")
    options = ExportOptions(
        output=tmp_path / "made", task="reranking", precisions=("int8", "bf16", "fp32"), min_cosine=0.9
    )
    made = export(str(source), options)
    assert not made.refused
    *_, words, ids_of = KINDS[kind]
    wanted = logits(source, PAIRS, ids_of, words, None)
    for precision, least in (("int8", 0.9), ("bf16", 0.99)):
        found = exported_scores(source, tmp_path / "made", PAIRS, {"precision": precision}, activation="identity")
        assert np.corrcoef(found, wanted)[0, 1] > least


# --- converted to a classification head ------------------------------------------------------------------------------


def as_classifier(source: Path, directory: Path) -> Path:
    """The same reranker with the difference of its two rows as a head of one label, as conversions store it."""
    shutil.copytree(source, directory)
    words = [token_id(source, word) for word in ("yes", "no")]

    def convert(tensors: dict[str, Any]) -> None:
        table = tensors["model.embed_tokens.weight"]
        tensors["score.weight"] = (table[words[0]] - table[words[1]])[None].copy()

    change_tensors(directory, convert)
    change_json(
        directory / "config.json",
        architectures=["Qwen3ForSequenceClassification"],
        id2label={"0": "LABEL_0"},
        label2id={"LABEL_0": 0},
        pad_token_id=0,
    )
    return directory


def test_a_conversion_to_a_classifier_scores_as_what_it_was_made_of(tmp_path: Path) -> None:
    source = prepared("qwen3", tmp_path / "source")
    wanted = logits(source, PAIRS, qwen3_ids, ("yes", "no"), None)
    converted = as_classifier(source, tmp_path / "converted")
    made = export(str(converted), ExportOptions(output=tmp_path / "made")).manifest
    assert made.parity["status"] == "passed"
    found = exported_scores(converted, tmp_path / "made", PAIRS, activation="identity")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)


def test_a_conversion_without_a_template_takes_what_is_written_out(tmp_path: Path) -> None:
    """As its card has it: the prompt is written around a query and a document by who asks."""
    source = prepared("qwen3", tmp_path / "source")
    wanted = logits(source, PAIRS, qwen3_ids, ("yes", "no"), None)
    converted = as_classifier(source, tmp_path / "converted")
    (converted / "chat_template.jinja").unlink()
    before, _, after = QWEN3.replace('{{ "\\n\\n" }}', "\n").partition("<Instruct>")
    end = after[after.index("<|im_end|>") :]
    written = [
        (f"{before}<Instruct>: {ASKED}\n<Query>: {query}\n", f"<Document>: {document}{end}")
        for query, document in PAIRS
    ]
    np.testing.assert_allclose(reference_scores(converted, written, activation_fn=LOGITS), wanted, rtol=1e-5, atol=2e-5)
    found = exported_scores(converted, tmp_path / "made", written, activation="identity")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_refusal_names_where_the_templates_are(tmp_path: Path) -> None:
    source = save_causal(tmp_path / "none", "gemma", template=None)
    with pytest.raises(UnsupportedCheckpointError, match=r"Other heads.*Qwen3-Reranker, mxbai-rerank-v2 and bge-rera"):
        export(str(source), ExportOptions(output=tmp_path / "made", task="reranking"))
    turns = "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ m.content }}{% endif %}{% endfor %}"
    source = save_causal(tmp_path / "chats", "qwen2", template=turns)
    with pytest.raises(UnsupportedCheckpointError, match=r"Other heads.*Qwen3-Reranker, mxbai-rerank-v2 and bge-rera"):
        export(str(source), ExportOptions(output=tmp_path / "made", task="reranking"))
