"""JSON arrays that are read piece by piece: the same wherever they are cut, and an error as soon as there is one."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from fastembed_rt.bulk import json_array
from fastembed_rt.errors import InvalidInputError

WHOLE = [
    {"text": "ü\u00e9🐈" + "x" * 40, "n": -12.5e-3, "deep": [[{"a": None, "b": True}], [], {}], "c": False},
    {"text": 'say "no"\\n', "n": float("-inf"), "deep": [[{"a": 1, "b": "y"}]], "c": None},
    "plain",
]


@pytest.mark.parametrize("piece", range(1, 40))
@pytest.mark.parametrize("blanks", [{"indent": 3}, {"separators": (",", ":")}, {"separators": ("   ,   ", "  :    ")}])
def test_an_array_is_the_same_wherever_it_is_cut(
    monkeypatch: pytest.MonkeyPatch, piece: int, blanks: dict[str, Any]
) -> None:
    monkeypatch.setattr(json_array, "PIECE", piece)
    for ascii_alone in (True, False):
        content = json.dumps(WHOLE * 3, ensure_ascii=ascii_alone, **blanks).encode()
        assert list(json_array.elements(io.BytesIO(content), "in.json", "utf-8", "strict")) == WHOLE * 3


@pytest.mark.parametrize(
    "element",
    ["{'a': 1}", '{"a": nope}', '{"a": 1 "b": 2}', '"a\nb"', '"\\x"', "[" * 100_000, "1" * 5000],
    ids=lambda e: e[:9],
)
def test_what_is_no_json_is_an_error_before_the_rest_is_read(element: str) -> None:
    stream = io.BytesIO(("[" + element + ", 1" * 2_000_000 + "]").encode())
    with pytest.raises(InvalidInputError, match=r"in\.json is not JSON"):
        next(json_array.elements(stream, "in.json", "utf-8", "strict"))
    assert stream.tell() <= json_array.PIECE


def test_an_element_without_an_end_is_not_read_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "LONGEST", 3 * json_array.PIECE)
    stream = io.BytesIO(b'["' + b"x" * 20 * json_array.PIECE)
    with pytest.raises(InvalidInputError, match="has an element of more than 3145728 letters"):
        next(json_array.elements(stream, "in.json", "utf-8", "strict"))
    assert stream.tell() <= 4 * json_array.PIECE


@pytest.mark.parametrize("behind", ['[{"text": "b"}]', "]", ",", "x", "\n\n{}"])
def test_what_stands_behind_an_array_is_not_passed_over(behind: str) -> None:
    """Such as the arrays of several answers, one behind the other."""
    for array in ('[{"text": "a"}]', "[]"):
        with pytest.raises(InvalidInputError, match=r"in\.json goes on behind its array; give each array a file"):
            list(json_array.elements(io.BytesIO((array + "\n" + behind).encode()), "in.json", "utf-8", "strict"))
        list(json_array.elements(io.BytesIO((array + " \r\n\t").encode()), "in.json", "utf-8", "strict"))
