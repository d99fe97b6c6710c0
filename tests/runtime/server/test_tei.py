"""text-embeddings-inference's routes: its bodies and answers, with the vectors and scores of the models themselves."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pytest
from asgi_client import Client, float32
from cross_encoders import reference_scores

TEXTS = ["the cat sleeps.", "a dog runs quickly under the old tree!", "", "new city light: 1 2 3"]
LONG = "the old dog runs under the tree " * 20


def vectors(answer: Any) -> Any:
    assert answer.status == 200, answer.body
    return np.array(answer.json, dtype=np.float32)


def test_embed_gives_the_vectors_of_encode(client: Client, loaded: Any) -> None:
    np.testing.assert_array_equal(vectors(client.post("/embed", {"inputs": TEXTS})), loaded.encoder.encode(TEXTS))


def test_one_text_is_a_list_of_one(client: Client, loaded: Any) -> None:
    found = vectors(client.post("/embed", {"inputs": TEXTS[0], "truncate": True, "model": "encoder"}))
    np.testing.assert_array_equal(found, loaded.encoder.encode(TEXTS[:1]))


def test_a_thousand_texts_come_back_in_order(client: Client, loaded: Any) -> None:
    texts = [f"{text} {k}" for k, text in enumerate(TEXTS * 250)]
    np.testing.assert_array_equal(vectors(client.post("/embed", {"inputs": texts})), loaded.encoder.encode(texts))


def test_dimensions_cut_and_normalize_again(client: Client, loaded: Any) -> None:
    for dimensions, dim in ((8, 8), (0, 24), (None, 24)):
        found = vectors(client.post("/embed", {"inputs": TEXTS, "dimensions": dimensions}))
        np.testing.assert_array_equal(found, loaded.encoder.encode(TEXTS, truncate_dim=dim))


def test_a_prompt_by_its_name(client: Client, loaded: Any) -> None:
    found = vectors(client.post("/embed", {"inputs": TEXTS, "prompt_name": "red"}))
    np.testing.assert_array_equal(found, loaded.encoder.encode(TEXTS, prompt_name="red"))
    refused = client.post("/embed", {"inputs": TEXTS, "prompt_name": "blue"})
    assert refused.status == 422
    assert "it has document, query, red" in refused.json["error"]


@pytest.mark.parametrize("path", ["/query/embed", "/encoder/query/embed", "/query/v1/embeddings"])
def test_a_role_by_the_path(client: Client, loaded: Any, path: str) -> None:
    answer = client.post(path, {"inputs": TEXTS, "input": TEXTS})
    found = answer.json if isinstance(answer.json, list) else [entry["embedding"] for entry in answer.json["data"]]
    np.testing.assert_array_equal(np.array(found, np.float32), loaded.encoder.encode_query(TEXTS))


def test_without_normalization_vectors_have_the_lengths_of_the_checkpoint(
    client: Client, loaded: Any, directories: Any
) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(directories.checkpoints["encoder"]), device="cpu", local_files_only=True)
    assert type(reference[-1]).__name__ == "Normalize"
    del reference[-1]
    found = vectors(client.post("/embed", {"inputs": TEXTS, "normalize": False}))
    np.testing.assert_allclose(found, reference.encode(TEXTS), rtol=0, atol=2e-5)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).min() > 0.1


@pytest.mark.parametrize("options", [{"default_prompt_name": "red"}, {"default_prompt": "the red "}], ids=str)
def test_without_normalization_the_default_prompt_stands_in_front_too(directories: Any, options: Any) -> None:
    from fastembed_rt.server.app import App
    from fastembed_rt.server.loading import load

    models = load([str(directories.models["encoder"])], threads=1, **options)
    with App(models) as app:
        client = Client(app)
        for normalize in (False, True):
            found = vectors(client.post("/embed", {"inputs": TEXTS, "normalize": normalize}))
            written = client.post("/embed", {"inputs": ["the red " + text for text in TEXTS], "normalize": normalize})
            named = client.post("/embed", {"inputs": TEXTS, "normalize": normalize, "prompt_name": "red"})
            np.testing.assert_array_equal(found, vectors(named))
            assert np.abs(found - vectors(written)).max() > 1e-3  # which has the prompt twice
        client.close()
    for served in models.all:
        served.model.close()


def test_a_long_text_is_cut_on_either_side_or_an_error(client: Client, loaded: Any) -> None:
    right = vectors(client.post("/embed", {"inputs": LONG}))
    left = vectors(client.post("/embed", {"inputs": LONG, "truncation_direction": "Left"}))
    np.testing.assert_array_equal(right[0], loaded.encoder.encode(LONG))
    tail = " ".join(LONG.split()[-38:])  # 40 tokens with the special ones
    np.testing.assert_allclose(left[0], loaded.encoder.encode(tail), rtol=0, atol=1e-6)
    refused = client.post("/embed", {"inputs": ["a", LONG], "truncate": False})
    assert (refused.status, refused.json["error_type"]) == (422, "Validation")
    assert "text 1 has 142 tokens" in refused.json["error"]


def test_embed_all_gives_the_states_of_all_tokens(client: Client, loaded: Any) -> None:
    answer = client.post("/embed_all", {"inputs": TEXTS[:2]})
    for found, expected in zip(answer.json, loaded.encoder.encode(TEXTS[:2], output="tokens"), strict=True):
        np.testing.assert_array_equal(np.array(found, np.float32), expected.vectors)
    answer = client.post("/embed_all", {"inputs": TEXTS[:2], "model": "colbert"})
    for found, expected in zip(answer.json, loaded.colbert.encode_document(TEXTS[:2]), strict=True):
        np.testing.assert_array_equal(np.array(found, np.float32), expected)


def test_embed_sparse(client: Client, loaded: Any) -> None:
    answer = client.post("/embed_sparse", {"inputs": TEXTS})
    for found, expected in zip(answer.json, loaded.splade.encode(TEXTS), strict=True):
        assert [entry["index"] for entry in found] == expected.indices.tolist()
        np.testing.assert_array_equal(float32([entry["value"] for entry in found]), expected.values)


def test_rerank_orders_as_the_reference_scores(client: Client, directories: Any) -> None:
    query, texts = "which dog runs ?", TEXTS[:2] + TEXTS[3:]
    scores = reference_scores(directories.checkpoints["ranker"], [(query, text) for text in texts]).tolist()
    answer = client.post("/rerank", {"query": query, "texts": texts, "return_text": True})
    order = sorted(range(3), key=lambda k: -scores[k])
    assert [(entry["index"], entry["text"]) for entry in answer.json] == [(k, texts[k]) for k in order]
    np.testing.assert_allclose([entry["score"] for entry in answer.json], sorted(scores, reverse=True), atol=1e-5)
    raw = client.post("/rerank", {"query": query, "texts": texts, "raw_scores": True}).json
    logits = [entry["score"] for entry in raw]
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(logits))), sorted(scores, reverse=True), atol=1e-5)
    assert "text" not in raw[0]


def test_rerank_of_late_interaction_is_maxsim(client: Client, loaded: Any) -> None:
    query, texts = "which dog runs ?", TEXTS[:2] + TEXTS[3:]
    answer = client.post("/rerank", {"query": query, "texts": texts, "model": "colbert"})
    expected = loaded.colbert.rank(query, texts)
    assert [entry["index"] for entry in answer.json] == [entry.index for entry in expected]
    np.testing.assert_allclose([e["score"] for e in answer.json], [e.score for e in expected], rtol=1e-6)


def test_predict_takes_one_pair_or_several(client: Client, loaded: Any) -> None:
    pairs = [["a cat", "the cat sleeps."], ["a dog", "new city"]]
    expected = loaded.ranker.predict([tuple(pair) for pair in pairs], activation="sigmoid")
    several = client.post("/predict", {"inputs": pairs}).json
    np.testing.assert_array_equal(float32([row[0]["score"] for row in several]), expected)
    one = client.post("/predict", {"inputs": pairs[0]}).json
    assert one == several[0]
    assert one[0]["label"] == loaded.ranker.labels[0]


def test_similarity_is_the_cosine(client: Client, loaded: Any) -> None:
    body = {"inputs": {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}, "parameters": {}}
    expected = loaded.encoder.encode(TEXTS) @ loaded.encoder.encode(TEXTS[0])
    for path in ("/similarity", "/"):
        np.testing.assert_allclose(client.post(path, body).json, expected[1:], atol=1e-6)


def test_tokenize_and_decode_are_the_tokenizers(client: Client, directories: Any) -> None:
    from tokenizers import Tokenizer

    reference = Tokenizer.from_file(str(directories.checkpoints["encoder"] / "tokenizer.json"))
    (tokens,) = client.post("/tokenize", {"inputs": "the cat sleeps."}).json
    assert [token["special"] for token in tokens] == [True, False, False, False, False, True]
    assert [(token["text"], token["start"], token["stop"]) for token in tokens[1:3]] == [("the", 0, 3), ("cat", 4, 7)]
    assert (tokens[0]["text"], tokens[0]["start"]) == ("[CLS]", None)
    bare = client.post("/tokenize", {"inputs": ["the cat sleeps."], "add_special_tokens": False}).json[0]
    assert bare == tokens[1:-1]
    ids = [token["id"] for token in tokens]
    assert client.post("/decode", {"ids": ids}).json == client.post("/decode", {"ids": [ids]}).json
    assert ids == reference.encode("the cat sleeps.").ids
    assert client.post("/decode", {"ids": ids}).json == [reference.decode(ids)]
    whole = client.post("/decode", {"ids": [ids], "skip_special_tokens": False}).json
    assert whole == [reference.decode(ids, skip_special_tokens=False)]


def test_places_of_tokens_are_bytes(client: Client) -> None:
    """As text-embeddings-inference counts: its tokens' texts are these bytes of the input."""
    for prompt, text in ((None, "über die Bäume — 猫 the cat 🐈 sleeps."), ("red", "é a dog"), (None, "the cat")):
        content = (("the red " if prompt else "") + text).encode()
        (tokens,) = client.post("/tokenize", {"inputs": text, "prompt_name": prompt}).json
        placed = [token for token in tokens if not token["special"]]
        assert len(placed) >= 2
        assert [content[token["start"] : token["stop"]].decode() for token in placed] == [t["text"] for t in placed]


def test_vertex_holds_several_bodies(client: Client, loaded: Any) -> None:
    body = {"instances": [{"inputs": TEXTS[0]}, {"inputs": TEXTS}, {"query": "a", "texts": ["a"]}]}
    predictions = client.post("/vertex", body).json["predictions"]
    np.testing.assert_array_equal(float32(predictions[1]), loaded.encoder.encode(TEXTS))
    assert predictions[2][0]["index"] == 0
    assert client.post("/vertex", {"instances": [body]}).status == 422


@pytest.mark.parametrize("path", ["/", "/invocations", "/encoder", "/encoder/"])
def test_the_route_of_the_task(client: Client, loaded: Any, path: str) -> None:
    np.testing.assert_array_equal(vectors(client.post(path, {"inputs": TEXTS})), loaded.encoder.encode(TEXTS))
    sparse = client.post(path.replace("encoder", "splade"), {"inputs": TEXTS, "model": "splade"})
    assert {"index", "value"} == set(sparse.json[0][0])


def test_info_says_what_runs(client: Client, loaded: Any) -> None:
    about = client.get("/info").json
    assert about["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (about["max_input_length"], about["max_batch_tokens"]) == (40, loaded.encoder.max_batch_tokens)
    assert [entry["task"] for entry in about["models"]] == ["embedding", "reranking", "sparse", "late_interaction"]
    label = loaded.ranker.labels[0]
    assert about["models"][1]["model_type"] == {"reranker": {"id2label": {"0": label}, "label2id": {label: 0}}}


def test_answers_carry_counts_and_times(client: Client, loaded: Any) -> None:
    headers = client.post("/embed", {"inputs": TEXTS}, x_request_id="mine-1").headers
    assert headers["x-request-id"] == "mine-1"
    assert headers["x-compute-characters"] == str(sum(map(len, TEXTS)))
    assert headers["x-compute-tokens"] == str(int(loaded.encoder.count_tokens(TEXTS).sum()))
    assert {"x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"} <= set(headers)


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/embed", {"inputs": []}, 400, "`inputs` cannot be empty"),
        ("/embed", {}, 422, "inputs: is missing"),
        ("/embed", {"inputs": None}, 422, "inputs: is null"),
        ("/embed", {"inputs": ["a", 1]}, 422, "inputs[1]: expected a string, got a whole number"),
        ("/embed", {"inputs": {"a": 1}}, 422, "inputs: expected a string or a list of strings, got an object"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, 422, "truncate: expected true or false, got a string"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "expected one of right, left"),
        ("/embed", {"inputs": "a", "dimensions": 25}, 422, "25 dimensions: expected 1 to 24"),
        ("/embed", {"inputs": "a", "dimensions": -1}, 422, "dimensions: expected a whole number from 0"),
        ("/embed", {"inputs": [1, 2]}, 422, "token ids are refused"),
        ("/embed", {"inputs": "a", "model": "other"}, 404, "models: encoder (embedding), ranker (reranking)"),
        ("/embed", {"inputs": "a", "model": "ranker"}, 422, "this route for embedding"),
        ("/embed", ["a"], 422, "body: expected an object, got a list"),
        ("/rerank", {"query": "a", "texts": []}, 400, "`texts` cannot be empty"),
        ("/rerank", {"query": "a", "texts": ["a", None]}, 422, "texts[1]: expected a string, got null"),
        ("/predict", {"inputs": "a"}, 422, "the model compares two texts"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "cannot be empty"),
        ("/decode", {"ids": ["a"]}, 422, "ids[0]: expected a list of token ids"),
        ("/nowhere", {}, 404, "no such path"),
        ("/health", {}, 405, "this path takes GET"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(client: Client, path: str, body: Any, status: int, said: str) -> None:
    answer = client.post(path, body)
    assert answer.status == status, answer.body
    assert said in answer.json["error"]
    assert set(answer.json) == {"error", "error_type"}


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b'{"inputs": NaN}', b'{"inputs": "\\ud800"}', b"[" * 5000])
def test_a_body_that_is_no_json_is_answered_in_json(client: Client, raw: bytes) -> None:
    answer = client.post("/embed", raw=raw)
    assert answer.status == 400
    assert answer.json["error_type"] == "Malformed"


def test_a_body_that_is_compressed_is_told_so(client: Client) -> None:
    answer = client.post("/embed", raw=gzip.compress(b'{"inputs": "a"}'), content_encoding="gzip")
    assert (answer.status, answer.json["error_type"]) == (400, "Malformed")
    assert "compressed are not read" in answer.json["error"]
    assert client.post("/embed", {"inputs": "a"}, content_encoding="identity").status == 200


def test_states_of_a_model_that_was_exported_without_them_are_the_clients_mistake(
    model: Any, loaded: Any, model_dir: Any
) -> None:
    from fastembed_rt.server.app import App

    with App({"plain": model, "encoder": loaded.encoder}) as app:
        asking = Client(app)
        for _ in range(2):
            answer = asking.post("/embed_all", {"inputs": TEXTS[:2]})
            assert answer.status == 422, answer.body
            assert answer.json["error_type"] == "Validation"
            assert answer.json["error"].endswith("export it with: fastembed-rt export --tokens")
            assert str(model_dir) not in answer.body.decode()  # where it lies is the server's
        assert asking.post("/embed", {"inputs": TEXTS[:2]}).status == 200
        assert asking.post("/embed_all", {"inputs": TEXTS[:2], "model": "encoder"}).status == 200
