"""Pairs through a chat template: text, cut and end are what transformers and the reference's rule make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from causal_rerankers import save_bpe_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from fastembed_rt.errors import InvalidInputError, ModelFormatError, TextTooLongError
from fastembed_rt.manifest import ChatTemplate, TemplatePart
from fastembed_rt.text.chat import Chat
from fastembed_rt.text.tokenizer import TextTokenizer

QUERY, DOCUMENT, PROMPT = (TemplatePart(slot=slot) for slot in ("query", "document", "prompt"))
FRONT, BEHIND = "<|im_start|>Is this about\n", "<|im_end|>\n<|im_start|>: yes or no?"
TEMPLATE = ChatTemplate(
    plain=(TemplatePart(text=FRONT), QUERY, TemplatePart(text=" | "), DOCUMENT, TemplatePart(text=BEHIND)),
    prompted=(QUERY, TemplatePart(text="/"), DOCUMENT, TemplatePart(text=" "), PROMPT, TemplatePart(text=BEHIND)),
)
STRIPPED = ChatTemplate(plain=(TemplatePart(slot="query", strip=True), TemplatePart(text="|"), DOCUMENT))
LONG = ("the cat", "new city light 1 2 3 " * 40)
every_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
Make = Callable[..., TextTokenizer]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizer")
    save_bpe_tokenizer(directory, None)
    return directory / "tokenizer.json"


@pytest.fixture(scope="module")
def make(file: Path) -> Make:
    def make(max_length: int = 60, template: ChatTemplate = TEMPLATE, **options: str) -> TextTokenizer:
        return TextTokenizer(file, max_length=max_length, chat=Chat(template), **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="module")
def library(file: Path) -> Tokenizer:
    return Tokenizer.from_file(str(file))


def test_texts_stand_in_their_places() -> None:
    chat = Chat(TEMPLATE)
    assert chat.render(("q ", " d")) == f"{FRONT}q  |  d{BEHIND}"
    assert chat.render(("q", "d"), "p") == f"q/d p{BEHIND}"
    assert Chat(STRIPPED).render((" \n q \u3000", " d ")) == "q| d "


def test_what_has_no_place_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="takes no system message"):
        Chat(STRIPPED).render(("q", "d"), "p")
    with pytest.raises(ModelFormatError, match="a place for 'answer'; known: query, document, prompt"):
        TemplatePart(slot="answer")


@given(every_text, every_text, every_text)
def test_a_pair_that_fits_has_the_tokens_of_its_text(
    make: Make, library: Tokenizer, query: str, document: str, prompt: str
) -> None:
    tokenizer = make(2000)
    found = tokenizer.pairs([(query, document)], prompt)
    front = f"{query}/{document} {prompt}" if prompt else f"{FRONT}{query} | {document}"
    assert found.ids[0].tolist() == library.encode(front + BEHIND).ids
    assert found.first_segments is not None
    assert found.first_segments.tolist() == [len(found.ids[0])]
    assert found.truncated == 0
    assert tokenizer.count([(query, document)], prompt).tolist() == [len(found.ids[0])]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("prompt", ["", "in short"])
def test_a_cut_pair_ends_as_the_template_does(make: Make, library: Tokenizer, prompt: str, side: str) -> None:
    pairs = [LONG, LONG[::-1], ("a", "b")]
    found = make(60, truncation_side=side).pairs(pairs, prompt)
    assert found.truncated == 2
    end = library.encode((" " if prompt else "") + prompt + BEHIND).ids
    for row, pair in zip(found.ids[:2], pairs, strict=False):
        whole = library.encode(Chat(TEMPLATE).render(pair, prompt)).ids
        kept = whole[:60] if side == "right" else whole[-60:]
        assert row.tolist() == [*kept[: 60 - len(end)], *end]
    assert found.ids[2].tolist() == library.encode(Chat(TEMPLATE).render(("a", "b"), prompt)).ids


def test_an_end_is_left_cut_where_that_is_wanted(make: Make, library: Tokenizer) -> None:
    template = ChatTemplate(plain=TEMPLATE.plain, restore_end=False)
    (row,) = make(60, template).pairs([LONG]).ids
    assert row.tolist() == library.encode(Chat(TEMPLATE).render(LONG)).ids[:60]


def test_a_template_without_an_end_has_none_to_write(make: Make, library: Tokenizer) -> None:
    (row,) = make(20, STRIPPED).pairs([LONG]).ids
    assert row.tolist() == library.encode(Chat(STRIPPED).render(LONG)).ids[:20]


def test_a_template_that_holds_no_text_of_the_pair_is_not_written_over_it(make: Make, library: Tokenizer) -> None:
    fixed = ChatTemplate(plain=(TemplatePart(text=FRONT * 9),))
    text = library.encode(FRONT * 9).ids
    chat, rows = Chat(fixed), [np.array(text[:20])]
    chat.with_end(rows, 20, "", lambda text: library.encode(text).ids)
    assert rows[0].tolist() == text[:20]


def test_policies_are_those_of_texts(make: Make) -> None:
    warned = make(60, truncation="warn").pairs([("a", "b"), LONG], first=5)
    assert warned.warning is not None
    assert warned.warning.startswith("text 6 has ")
    with pytest.raises(TextTooLongError, match="text 0 has "):
        make(60).with_policy("error").pairs([LONG])
    assert make(60).with_policy(side="left").pairs([LONG]).ids[0].tolist() != make(60).pairs([LONG]).ids[0].tolist()


def test_other_limits_keep_the_template(make: Make) -> None:
    assert len(make(60).with_max_length(50).pairs([LONG]).ids[0]) == 50
    assert make(60).with_chat(None).chat is None
    with pytest.raises(InvalidInputError, match=r"max_length 20 leaves no room beside \d+ tokens of the chat template"):
        make(20)
    with pytest.raises(InvalidInputError, match="leaves no room"):
        make(60).with_max_length(20)


def test_a_very_long_document_costs_no_more_than_its_beginning(make: Make) -> None:
    """Of which the tokens are those of the whole."""
    pair = (LONG[0], LONG[1] * 400)
    assert make(60).pairs([pair]).ids[0].tolist() == make(60).pairs([LONG]).ids[0].tolist()
