"""Vectors of tokens and of spans beside transformers' last_hidden_state, pooled here by hand (arXiv:2409.04701)."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from checkpoints import TEXTS, save_sentence_transformers
from exports import quick
from sparse_encoders import save_splade

from fastembed_rt import EmbeddingModel, native
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, ModelFormatError, TextTooLongError
from fastembed_rt.manifest import read
from fastembed_rt.models.token_states import token_encoder

BOUND = 1e-5
BEST = "native" if native.kernels() else "cpu"
SENTENCES = (
    "a dog runs under the old tree. the red house, by day. machine learning text! quickly the cat sleeps over it."
)
LONG = " ".join([SENTENCES] * 3)
Array = npt.NDArray[Any]


class Reference:
    """A checkpoint in transformers."""

    def __init__(self, checkpoint: Path) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
        self.model = transformers.AutoModel.from_pretrained(checkpoint).eval()

    def states(self, ids: list[int]) -> Array:
        with torch.no_grad():
            found: Array = self.model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()
        return found

    def whole(self, text: str) -> tuple[list[int], Array, Array]:
        made = self.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
        return made["input_ids"], np.array(made["offset_mapping"]), np.array(made["special_tokens_mask"], bool)

    def windows(self, text: str, length: int, overlap: int, prompt: str = "") -> tuple[Array, Array]:
        """States and offsets of a text's own tokens, out of windows that repeat `overlap` tokens of the last."""
        ids, offsets, special = self.whole(prompt + text)
        offsets = offsets - len(prompt)
        front = [k for k in range(len(ids)) if not special[k] and offsets[k, 1] <= 0]
        own = [k for k in range(len(ids)) if not special[k] and offsets[k, 1] > 0]
        first, last = ids[0], ids[-1]
        room = length - 2 - len(front)
        found, start = [], 0
        while True:
            row = own[start : start + room]
            states = self.states([first, *(ids[k] for k in [*front, *row]), last])[1 + len(front) : -1]
            found.append(states if start == 0 else states[overlap:])
            if start + room >= len(own):
                return np.concatenate(found), np.maximum(offsets[own], 0)
            start += room - overlap


def pooled(states: Array, offsets: Array, spans: list[tuple[int, int]], *, normalize: bool = True) -> Array:
    rows = []
    for start, stop in spans:
        inside = (offsets[:, 0] < stop) & (offsets[:, 1] > start)
        mean = torch.tensor(states[inside]).mean(0)
        rows.append((torch.nn.functional.normalize(mean, dim=0) if normalize else mean).numpy())
    return np.array(rows)


def sentences(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer(r"[^.!]+[.!]?", text)]


def close(found: Array, wanted: Array, bound: float = BOUND) -> None:
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max(initial=0.0) < bound


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "query : ", "document": "the passage : "}
    return save_sentence_transformers(tmp_path_factory.mktemp("states") / "checkpoint", prompts=prompts)


@pytest.fixture(scope="module")
def directory(checkpoint: Path) -> Path:
    quick(checkpoint, checkpoint.with_name("model"), precisions=("fp32", "int8"), tokens=True)
    return checkpoint.with_name("model")


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", "modernbert", "distilbert"])
@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_states_and_spans_of_every_family(
    model_type: str, target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / f"states-{model_type}"
    if not root.exists():
        quick(save_sentence_transformers(root / "checkpoint", model_type), root / "model", tokens=True)
    reference = Reference(root / "checkpoint")
    with EmbeddingModel(root / "model", target=target) as model:
        for text, found in zip(TEXTS, model.encode(TEXTS, output="tokens"), strict=True):
            ids, offsets, special = reference.whole(text)
            ids = ids if len(ids) <= model.max_length else [*ids[: model.max_length - 1], ids[-1]]
            close(found.vectors, reference.states(ids))
            assert found.ids.tolist() == ids
            if len(ids) == len(offsets):
                assert found.offsets[~found.special].tolist() == offsets[~special & (offsets[:, 1] > 0)].tolist()
                assert (found.special == special | (offsets[:, 1] == 0)).all()
        text = "the old cat sleeps. a dog runs!"
        ids, offsets, special = reference.whole(text)
        states = reference.states(ids)[~special]
        close(model.encode_spans(text, sentences(text)), pooled(states, offsets[~special], sentences(text)))


def test_neighbours_and_batches_change_nothing(directory: Path, reference: Reference) -> None:
    texts = [f"{'a dog runs ' * (k % 7)}the cat {k}" for k in range(150)]
    with EmbeddingModel(directory, threads=2) as model:
        assert len(model.encode(texts, output="tokens")) == len(texts)
        stream = model.embed(iter(texts), output="tokens")
        for text, found, streamed in zip(texts, model.encode(texts, output="tokens"), stream, strict=True):
            close(found.vectors, reference.states(reference.whole(text)[0]))
            close(streamed.vectors, found.vectors)
            assert np.array_equal(streamed.offsets, found.offsets)
        with pytest.raises(InvalidInputError, match="truncate_dim is for vectors of texts"):
            model.embed(texts, output="tokens", truncate_dim=5)
        before = model.stats
        spans = model.encode_spans(texts, [sentences(text) for text in texts])
        assert model.stats.texts == before.texts + len(texts)
        whole = model.encode_spans(texts, [[(0, len(text))] for text in texts])
    for text, found, all_of in zip(texts, spans, whole, strict=True):
        ids, offsets, special = reference.whole(text)
        states = reference.states(ids)[~special]
        close(found, pooled(states, offsets[~special], sentences(text)))
        close(all_of, pooled(states, offsets[~special], [(0, len(text))]))


@pytest.mark.parametrize("prompt_name", [None, "document"])
@pytest.mark.parametrize(("length", "overlap"), [(24, 5), (30, 0), (17, None), (48, 20)])
def test_long_texts_are_windows_that_overlap(
    directory: Path, reference: Reference, length: int, overlap: int | None, prompt_name: str | None
) -> None:
    prompt = "the passage : " if prompt_name else ""
    states, offsets = reference.windows(LONG, length, length // 8 if overlap is None else overlap, prompt)
    with EmbeddingModel(directory, max_length=length) as model:
        found = model.encode_spans(LONG, sentences(LONG), overlap=overlap, prompt_name=prompt_name)
        close(found, pooled(states, offsets, sentences(LONG)))
        assert model.stats.truncated == 0
    if overlap == 0:
        with EmbeddingModel(directory, max_length=length, truncation="chunk") as model:
            tokens = model.encode(LONG, output="tokens", prompt_name=prompt_name)
            close(tokens.vectors[~tokens.special], states)
            assert tokens.offsets[~tokens.special].tolist() == offsets.tolist()


def test_each_truncation_does_what_it_says(directory: Path, reference: Reference) -> None:
    ids, offsets, _ = reference.whole(LONG)
    with EmbeddingModel(directory, max_length=12) as model:
        found = model.encode(LONG, output="tokens")
        close(found.vectors, reference.states([*ids[:11], ids[-1]]))
        assert found.offsets[:11].tolist() == offsets[:11].tolist()
        assert model.stats.truncated == 1
        counted = model.encode([LONG, "a dog"], output="tokens", return_tokens=True)
        assert counted.tokens.tolist() == [12, 4]
    with EmbeddingModel(directory, max_length=12, truncation="error") as model:
        calls: list[Callable[[], Any]] = [
            lambda: model.encode(LONG, output="tokens"),
            lambda: model.encode_spans(LONG, [(0, 9)]),
        ]
        for call in calls:
            with pytest.raises(TextTooLongError, match=f"text 0 has {len(ids)} tokens"):
                call()


def test_texts_lose_their_beginning_where_the_model_says_so(
    directory: Path, reference: Reference, tmp_path: Path
) -> None:
    shutil.copytree(directory, tmp_path / "left")
    manifest = tmp_path / "left" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"truncation_side": "right"', '"truncation_side": "left"'))
    ids, offsets, _ = reference.whole(LONG)
    with EmbeddingModel(tmp_path / "left", max_length=12) as model:
        found = model.encode(LONG, output="tokens")
        close(found.vectors, reference.states([ids[0], *ids[-11:]]))
        assert found.offsets[1:-1].tolist() == offsets[-11:-1].tolist()


def test_prompts_stand_in_front_and_are_marked(directory: Path, reference: Reference) -> None:
    text = "a dog runs. the cat sleeps!"
    ids, offsets, special = reference.whole("query : " + text)
    own = ~special & (offsets[:, 1] > len("query : "))
    with EmbeddingModel(directory) as model:
        found = model.encode_query(text, output="tokens")
        close(found.vectors, reference.states(ids))
        assert (~found.special == own).all()
        assert [text[start:stop] for start, stop in found.offsets[~found.special]] == text.replace(".", " .").replace(
            "!", " !"
        ).split()
        assert not found.offsets[found.special].any()
        wanted = pooled(reference.states(ids)[own], offsets[own] - len("query : "), sentences(text))
        close(model.encode_spans(text, sentences(text), prompt_name="query"), wanted)


def test_int8_is_near_full_precision(directory: Path, reference: Reference) -> None:
    ids, offsets, special = reference.whole("the old cat sleeps under a tree. a dog runs quickly!")
    text = "the old cat sleeps under a tree. a dog runs quickly!"
    wanted = pooled(reference.states(ids)[~special], offsets[~special], sentences(text))
    targets = ["cpu"] + (["native"] if native.kernels() is not None else [])
    for target in targets:
        with EmbeddingModel(directory, precision="int8", target=target) as model:
            found = model.encode_spans(text, sentences(text))
            assert (found * wanted).sum(axis=1).min() > 0.99, target
            tokens = model.encode([text] * 3, output="tokens")
            assert tokens[0].vectors.shape == (len(ids), 24)
            assert np.array_equal(tokens[0].vectors, tokens[2].vectors)


def test_what_is_cut_or_not_normalized(tmp_path: Path) -> None:
    quick(save_sentence_transformers(tmp_path / "raw", normalize=False), tmp_path / "model", tokens=True)
    reference = Reference(tmp_path / "raw")
    text = "a dog runs. the cat sleeps!"
    ids, offsets, special = reference.whole(text)
    states, offsets = reference.states(ids)[~special], offsets[~special]
    with EmbeddingModel(tmp_path / "model") as model:
        raw = pooled(states, offsets, sentences(text), normalize=False)
        close(model.encode_spans(text, sentences(text)), raw)
        close(model.encode_spans(text, sentences(text), normalize=True), pooled(states, offsets, sentences(text)))
        close(model.encode_spans(text, sentences(text), truncate_dim=5), raw[:, :5])
        close(model.encode_spans(text, [(0, len(text))])[0], model.encode_spans([text], [[(0, len(text))]])[0][0])


def test_spans_that_hold_nothing_and_spans_that_are_none(directory: Path) -> None:
    with EmbeddingModel(directory) as model:
        found = model.encode_spans("a dog   runs", [(5, 8), (3, 3), (0, 1)])
        assert not found[:2].any()
        assert found[2].any()
        assert model.encode_spans("a dog", []).shape == (0, 24)
        assert model.encode_spans("", [(0, 0)]).shape == (1, 24)
        assert model.encode_spans([], []) == []
        wrong = {
            "span 1 of text 0, .4, 9., is not in a text of 5 characters": ("a dog", [(0, 1), (4, 9)]),
            r"span 0 of text 1, .3, 2.": (["a dog", "a cat"], [[(0, 1)], [(3, 2)]]),
            r"span 0 of text 0, .-1, 2.": ("a dog", [(-1, 2)]),
            "1 lists of spans for 2 texts": (["a", "b"], [[(0, 1)]]),
            "spans of text 0 are not pairs": ("a dog", [(0.5, 1.5)]),
            "spans of text 0 are not pairs of characters": ("a dog", [(0, 1), (1, 2, 3)]),
        }
        for message, (texts, spans) in wrong.items():
            with pytest.raises(InvalidInputError, match=message):
                model.encode_spans(texts, spans)  # type: ignore[arg-type]
        with pytest.raises(InvalidTypeError, match="text 1 is NoneType"):
            model.encode_spans(["a", None], [[], []])  # type: ignore[list-item]


def test_an_overlap_is_looked_at_before_any_text_is_long(directory: Path) -> None:
    with EmbeddingModel(directory) as model:
        for text in ("a dog", LONG):
            for wrong in (-1, 46, 10_000):
                with pytest.raises(InvalidInputError, match=f"overlap {wrong} is not possible; .* room for 46 tokens"):
                    model.encode_spans(text, [(0, 1)], overlap=wrong)
            for kind, no_number in (("float", 0.5), ("bool", True), ("str", "5"), ("float64", np.float64(5))):
                with pytest.raises(InvalidTypeError, match=f"overlap is {kind}, expected int"):
                    model.encode_spans(text, [(0, 1)], overlap=no_number)  # type: ignore[arg-type]
            with pytest.raises(InvalidInputError, match="overlap 44 is not possible; windows have room for 44 tokens"):
                model.encode_spans(text, [(0, 1)], prompt_name="query", overlap=44)
            for most in (45, cast(int, np.int64(45))):
                assert model.encode_spans(text, [(0, 1)], overlap=most).shape == (1, 24)
        with pytest.raises(InvalidInputError, match="overlap 46 is not possible"):
            model.encode_spans([], [], overlap=46)


def test_rows_without_a_text(directory: Path) -> None:
    with EmbeddingModel(directory) as model:
        nothing, text = model.encode([None, "a dog"], output="tokens", on_null="zero")  # type: ignore[list-item]
        assert (len(nothing), nothing.vectors.shape, nothing.offsets.shape) == (0, (0, 24), (0, 2))
        assert len(text) == 4
        assert len(model.encode([None], output="tokens", on_null="empty")[0]) == 2  # type: ignore[list-item]


def test_calls_that_do_not_fit_tokens(directory: Path) -> None:
    with EmbeddingModel(directory) as model:
        with pytest.raises(InvalidInputError, match="output 'token_embeddings' is not known; known: sentence, tokens"):
            model.encode("a", output="token_embeddings")
        for options in ({"normalize": True}, {"truncate_dim": 3}, {"precision": "int8"}):
            with pytest.raises(InvalidInputError, match=f"{next(iter(options))} is for vectors of texts"):
                model.encode("a", output="tokens", **options)


def test_a_directory_without_token_graphs_names_the_option(checkpoint: Path, tmp_path: Path) -> None:
    quick(checkpoint, tmp_path / "plain")
    assert all(variant.tokens is None for variant in read(tmp_path / "plain").variants)
    with EmbeddingModel(tmp_path / "plain") as model:
        calls: list[Callable[[], Any]] = [
            lambda: model.encode("a", output="tokens"),
            lambda: model.encode_spans("a", [(0, 1)]),
        ]
        for call in calls:
            with pytest.raises(
                ModelFormatError, match=rf"texts alone in {BEST}/fp32; .* with: fastembed-rt export --tokens"
            ):
                call()
        assert model.encode("a").shape == (24,)


def test_models_whose_vectors_are_no_means_of_states(tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {"pooling cls": {"pooling": "cls"}, "Dense follows": {"dense": 8}}
    for message, options in cases.items():
        name = message.replace(" ", "-")
        quick(save_sentence_transformers(tmp_path / name, **options), tmp_path / f"{name}-model", tokens=True)
        reference = Reference(tmp_path / name)
        with EmbeddingModel(tmp_path / f"{name}-model") as model:
            tokens = model.encode("a dog runs", output="tokens")
            close(tokens.vectors, reference.states(reference.whole("a dog runs")[0]))
            with pytest.raises(InvalidInputError, match=f"late chunking takes means of token states, and .*{message}"):
                model.encode_spans("a dog", [(0, 1)])


def test_token_graphs_are_small_and_share_the_weights(directory: Path) -> None:
    described = read(directory)
    known = {record.file for variant in described.variants for record in variant.files}
    for variant in described.variants:
        assert variant.tokens is not None
        assert {record.file for record in variant.tokens.weights} <= known
        assert variant.tokens.graph in described.files


def test_first_tokens_alone_are_calibrated_for_cls_in_int8(tmp_path: Path) -> None:
    quick(save_sentence_transformers(tmp_path / "c", pooling="cls"), tmp_path / "m", tokens=True, precisions=("int8",))
    assert all(variant.tokens is None for variant in read(tmp_path / "m").variants)


def test_other_tasks_have_no_such_graphs(tmp_path: Path) -> None:
    from fastembed_rt_export.errors import InvalidInputError as Refused

    with pytest.raises(Refused, match=r"--tokens is for embedding, and .* is for sparse"):
        quick(save_splade(tmp_path / "splade"), tmp_path / "model", tokens=True)


def test_a_damaged_token_graph_is_an_error_of_its_own_calls(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "model")
    file = tmp_path / "model" / f"model.{BEST}.fp32.tokens.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with EmbeddingModel(tmp_path / "model") as model:
        assert model.encode("a").shape == (24,)
        with pytest.raises(ModelFormatError, match=rf"model.{BEST}.fp32.tokens.onnx has SHA-256"):
            model.encode("a", output="tokens")


def test_processes_of_devices_and_copies_have_them_too(directory: Path) -> None:
    with EmbeddingModel(directory, threads=1) as model:
        tokens = model.encode("a dog runs", output="tokens")
        again = copy.deepcopy(model)
        np.testing.assert_array_equal(again.encode("a dog runs", output="tokens").vectors, tokens.vectors)
        assert token_encoder(again)._running() is token_encoder(model)._running()
    with EmbeddingModel(directory, device_ids=[0, 1]) as several:
        np.testing.assert_allclose(several.encode("a dog runs", output="tokens").vectors, tokens.vectors, atol=1e-6)
