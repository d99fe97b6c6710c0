"""The vocabulary that C reads out of a tokenizer.json is what Python's json makes of it, or is left to that."""

from __future__ import annotations

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

from fastembed_rt import native
from fastembed_rt.text.quick import Described
from fastembed_rt.text.wordpiece import described, wordpiece

pytestmark = pytest.mark.skipif(native.wordpiece() is None, reason="the operators are not compiled")
MODEL = '"model": {"type": "WordPiece", "unk_token": "u", "vocab": %s}'
FILE = f'{{{MODEL}, "added_tokens": [{{"content": "\\"vocab\\": {{"}}]}}'
# What is between the pieces of a vocabulary, and in them.
ODD = [
    *("", "a", "##", "##a"),
    '"',
    "\\",
    "/",
    "\b\f\n\r\t\x00\x1f\x7f",
    "é",
    "猫",
    "\uffff",
    "\U0001f408",
    '"vocab": {',
    "u",
]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Files that were left to json with their vocabularies."""
    left: list[bytes] = []

    def loads(content: bytes) -> Any:
        if b'"vocab": {}' not in content:
            left.append(content)
        return json.loads(content)

    for module in ("wordpiece", "quick"):
        monkeypatch.setattr(f"fastembed_rt.text.{module}.json", SimpleNamespace(loads=loads))
    return left


def words(pieces: Described) -> dict[str, int]:
    ends = [0, *pieces.lengths.cumsum().tolist()]
    found = [pieces.data[start:end].tobytes().decode() for start, end in pairwise(ends)]
    return dict(zip(found, pieces.values.tolist(), strict=True))


@given(
    st.dictionaries(st.text(max_size=4) | st.sampled_from(ODD), st.integers(0, 999_999_999), max_size=6),
    st.booleans(),
    st.sampled_from([None, 0, 3]),
)
def test_any_vocabulary_is_jsons(vocabulary: dict[str, int], escaped: bool, indent: int | None) -> None:
    content = (FILE % json.dumps(vocabulary, ensure_ascii=escaped, indent=indent)).encode()
    found = described(content)
    assert words(found) == vocabulary
    assert found.rest["added_tokens"] == [{"content": '"vocab": {'}]


@pytest.mark.parametrize("escaped", [True, False])
def test_no_piece_is_left_to_json(slow: list[bytes], escaped: bool) -> None:
    vocabulary = {piece: number for number, piece in enumerate(ODD)}
    assert words(described((FILE % json.dumps(vocabulary, ensure_ascii=escaped)).encode())) == vocabulary
    assert slow == []
    assert words(described((FILE % r'{"\u00E9\u00e9": 0, "\ud83d\udc08\/": 12}').encode())) == {
        "éé": 0,
        "\U0001f408/": 12,
    }
    assert slow == []


@pytest.mark.parametrize(
    "text",
    [
        *('{"a": 1.0}', '{"a": -1}', '{"a": 1e1}', '{"a": 1234567890}', '{"a": null}', '{"a": "1"}', '{"a": {"b": 1}}'),
        *(
            '{"a": 01}',
            '{"a": }',
            '{"a": 1,}',
            '{"a" 1}',
            "{a: 1}",
            '{"a',
            '{"a\\',
            '{"a\\u12',
        ),
        *(
            '{"a": 1 "b": 2}',
            '{"\\x": 1}',
            '{"\\u12g4": 1}',
            '{"\x01": 1}',
            '{"\\ud83d": 1}',
            '{"\\ud83dx": 1}',
            '{"\\udc08\\ud83d": 1}',
        ),
    ],
)
def test_anything_else_is_jsons_to_take_or_refuse(slow: list[bytes], text: str) -> None:
    content = (FILE % text).encode()
    try:
        expected = {piece.encode(): number for piece, number in json.loads(text).items() if type(number) is int}
        expected.popitem()
    except (ValueError, KeyError):
        with pytest.raises((ValueError, TypeError)):
            described(content)
    else:
        assert words(described(content)) == json.loads(text)
    assert slow == [content]


def test_of_two_ids_of_a_piece_the_last_one_counts() -> None:
    content = json.loads(Tokenizer(models.WordPiece({"u": 0, "a": 1}, unk_token="u")).to_str())
    content |= {
        "normalizer": json.loads(normalizers.BertNormalizer().__getstate__()),
        "pre_tokenizer": {"type": "BertPreTokenizer"},
    }
    twice = json.dumps(content).replace('"a": 1', '"a": 1, "a": 7').encode()
    mine = wordpiece(twice)
    assert mine is not None
    rows, _ = mine(["a b"], 9)
    assert [row.tolist() for row in rows if row is not None] == [[7, 0]]
    library = Tokenizer.from_str(twice.decode())
    assert library.encode("a b").ids == [7, 0]


def test_bytes_that_are_no_text_and_vocabularies_without_the_unknown_token_are_refused() -> None:
    content = FILE % '{"u": 0, "a?": 1}'
    with pytest.raises(UnicodeDecodeError):
        described(content.encode().replace(b"?", b"\xff"))
    assert wordpiece((FILE % '{"a": 1}').encode()) is None


def test_a_vocabulary_elsewhere_is_not_taken_for_the_models() -> None:
    content = b'{"decoder": {"vocab": {"x": 1}}, "model": {"vocab": {"a": 1}}}'
    assert words(described(content)) == {"a": 1}
    content = b'{"decoder": {"vocab": {"x": 1}}, "model": {"\\u0076ocab": {"a": 1}}}'
    assert words(described(content)) == {"a": 1}
