"""Whatever a body holds, the answer is JSON, is no error of the server, and says nothing of the texts."""

from __future__ import annotations

from typing import Any

from asgi_client import Client
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

TEXT = st.sampled_from(["", "a cat", "the old dog runs 東京", "secret-" * 3]) | st.text(max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
TEXTS = TEXT | st.lists(TEXT, max_size=4) | VALUES
KEYS = {
    **dict.fromkeys(
        ("inputs", "input", "texts", "documents", "query", "text_1", "text_2", "queries", "instances"), TEXTS
    ),
    "ids": st.lists(st.integers(-1, 400), max_size=4) | VALUES,
    "parameters": VALUES,
    **{
        name: st.sampled_from([True, False, None, 0, 1, 8, 2**60, "right", "Left", "float", "base64", "query"]) | VALUES
        for name in (
            *("truncate", "truncation_direction", "normalize", "dimensions", "raw_scores", "return_text", "top_n"),
            *("return_documents", "encoding_format", "input_type", "prompt_name", "add_special_tokens"),
            *("skip_special_tokens", "output_dimension"),
        )
    },
    "embedding_types": st.lists(st.sampled_from(["float", "base64", "binary", "int8"]), max_size=2) | VALUES,
    "model": st.sampled_from(["encoder", "ranker", "splade", "colbert", "other"]) | VALUES,
}
BODIES = st.fixed_dictionaries({}, optional=KEYS) | VALUES


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(body=BODIES)
@example(body={"inputs": {"source_sentence": "secret-a", "sentences": ["secret-b"]}, "parameters": {"truncate": 1}})
@example(body={"instances": [None]})
@example(body={"inputs": "a", "input": "a", "texts": ["a"], "prompt_name": "secret-name", "input_type": "secret-use"})
@example(body={"inputs": ["secret-a", {"secret-b": 1}], "model": "secret-model", "encoding_format": "secret-format"})
@example(body={"inputs": "a", "dimensions": 2**60})
@example(body={"query": "a", "texts": ["a"], "documents": ["a"], "top_n": 2**53 + 1})
def test_every_answer_is_json_and_none_is_a_fault(client: Client, body: Any) -> None:
    for route in client.app.table.routes:
        if route.method != "POST":
            continue
        answer = client.post(route.path.replace("{}", "encoder"), body)
        assert answer.status < 500, (route.path, body, answer.body)
        pulled = route.path == "/api/pull" and answer.status == 200  # a line a step, of which there is one
        assert answer.headers["content-type"] == ("application/x-ndjson" if pulled else "application/json")
        if answer.status != 200:
            assert "error" in answer.json
            assert "secret-" not in answer.body.decode()
