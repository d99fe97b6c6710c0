"""SentenceTransformer of fastembed_rt.compat and of sentence-transformers, each call in both."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dense_calls import TEXTS, Call, ids_of
from same_results import outcome, same

from fastembed_rt import errors
from fastembed_rt.compat import sentence_transformers as compat

VECTORS = np.random.default_rng(0).normal(size=(4, 24)).astype(np.float32)
CALLS: dict[str, Call] = {
    "encode list": lambda m: m.encode(TEXTS),
    "encode one": lambda m: m.encode("a dog runs"),
    "encode one in a list": lambda m: m.encode(["a dog runs"]),
    "encode tuple": lambda m: m.encode(tuple(TEXTS)),
    "encode array": lambda m: m.encode(np.array(TEXTS)),
    "encode array of objects": lambda m: m.encode(np.array(TEXTS, dtype=object)),
    "encode nothing": lambda m: m.encode([]),
    "encode nothing, tensor": lambda m: m.encode([], convert_to_tensor=True),
    "encode nothing, tensors": lambda m: m.encode([], convert_to_numpy=False),
    "encode nothing, codes": lambda m: m.encode([], precision="int8"),
    "sentences=": lambda m: m.encode(sentences=TEXTS),
    "inputs=": lambda m: m.encode(inputs=TEXTS),
    "positional prompt name": lambda m: m.encode(TEXTS, "query"),
    "positional prompt": lambda m: m.encode(TEXTS, None, "so: "),
    "prompt_name": lambda m: m.encode(TEXTS, prompt_name="document"),
    "prompt": lambda m: m.encode(TEXTS, prompt="the new red "),
    "empty prompt": lambda m: m.encode(TEXTS, prompt=""),
    "prompt before its name": lambda m: m.encode(TEXTS, prompt="the new red ", prompt_name="query"),
    "unknown prompt": lambda m: m.encode(TEXTS, prompt_name="nothing"),
    "prompt_name query by encode_query": lambda m: m.encode_query(TEXTS),
    "encode_document": lambda m: m.encode_document(TEXTS),
    "encode_query, positional": lambda m: m.encode_query("a dog runs", None, "so: ", 8, False),
    "encode_document with a name": lambda m: m.encode_document(TEXTS, prompt_name="query"),
    "encode_document sentences=": lambda m: m.encode_document(sentences=TEXTS),
    "batch_size": lambda m: m.encode(TEXTS, batch_size=2),
    "batch_size 0": lambda m: m.encode(TEXTS, batch_size=0),
    "tensor": lambda m: m.encode(TEXTS, convert_to_tensor=True),
    "tensor of one": lambda m: m.encode("a dog runs", convert_to_tensor=True),
    "list of tensors": lambda m: m.encode(TEXTS, convert_to_numpy=False),
    "tensor of one, not numpy": lambda m: m.encode("a dog runs", convert_to_numpy=False),
    "normalized": lambda m: m.encode(TEXTS, normalize_embeddings=True),
    "normalized tensor": lambda m: m.encode(TEXTS, convert_to_tensor=True, normalize_embeddings=True),
    "cut": lambda m: m.encode(TEXTS, truncate_dim=8),
    "cut and normalized": lambda m: m.encode(TEXTS, truncate_dim=8, normalize_embeddings=True),
    "cut beyond the end": lambda m: m.encode(TEXTS, truncate_dim=800),
    "precision None": lambda m: m.encode(TEXTS, precision=None),
    "int8": lambda m: m.encode(TEXTS, precision="int8"),
    "int8 tensor": lambda m: m.encode(TEXTS, precision="int8", convert_to_tensor=True),
    "int8 of one": lambda m: m.encode("a dog runs", precision="int8"),
    "uint8": lambda m: m.encode(TEXTS, precision="uint8"),
    "binary": lambda m: m.encode(TEXTS, precision="binary"),
    "binary of one": lambda m: m.encode("a dog runs", precision="binary"),
    "ubinary, list of tensors": lambda m: m.encode(TEXTS, precision="ubinary", convert_to_numpy=False),
    "unknown precision": lambda m: m.encode(TEXTS, precision="int3"),
    "a number": lambda m: m.encode([1, 2]),
    "unknown keyword": lambda m: m.encode(TEXTS, speed="high"),
    "encode_query, one positional too many": lambda m: m.encode_query(TEXTS, *[None] * 14),
    "a prompt by place and by name": lambda m: m.encode_document(TEXTS, "query", prompt_name="document"),
    "texts under two names": lambda m: m.encode(TEXTS, sentences=TEXTS),
    "queries under two names": lambda m: m.encode_query(TEXTS, sentences=TEXTS),
    "a task without a router": lambda m: m.encode(TEXTS, task="foo"),
    "device": lambda m: m.encode(TEXTS, device="cpu"),
    "max_seq_length": lambda m: m.max_seq_length,
    "get_max_seq_length": lambda m: m.get_max_seq_length(),
    "prompts": lambda m: m.prompts,
    "default_prompt_name": lambda m: m.default_prompt_name,
    "similarity_fn_name": lambda m: m.similarity_fn_name,
    "dimension": lambda m: m.get_embedding_dimension(),
    "dimension, older name": lambda m: m.get_sentence_embedding_dimension(),
    "similarity": lambda m: m.similarity(VECTORS, VECTORS[:2]),
    "similarity of tensors": lambda m: m.similarity(torch.from_numpy(VECTORS), torch.from_numpy(VECTORS[:2])),
    "similarity of lists": lambda m: m.similarity(list(VECTORS), list(torch.from_numpy(VECTORS))),
    "similarity of one and many": lambda m: m.similarity(VECTORS[0], VECTORS),
    "similarity_pairwise": lambda m: m.similarity_pairwise(VECTORS, VECTORS[::-1].copy()),
    "preprocess": lambda m: ids_of(m.preprocess(TEXTS)),
    "preprocess of nothing": lambda m: m.preprocess([]),
    "preprocess with a prompt": lambda m: ids_of(m.preprocess(TEXTS, prompt="the new ")),
    "tokenize": lambda m: ids_of(m.tokenize(TEXTS)),
    "tokenizer": lambda m: m.tokenizer(TEXTS[0])["input_ids"],
    "device attribute": lambda m: m.device,
    "dtype": lambda m: m.dtype,
    "to": lambda m: m.to("cpu").eval().float().encode(TEXTS),
    "to, without waiting": lambda m: m.to("cpu", torch.float32, True).device,
    "to a dtype without waiting": lambda m: m.to(torch.float32, True).device,
    "to, with a word that nobody knows": lambda m: m.to("cpu", speed=3),
    "to torch.device": lambda m: m.to(torch.device("cpu")).device,
    "modalities": lambda m: (m.modalities, m.supports("text"), m.supports("image")),
    "get_model_kwargs": lambda m: m.get_model_kwargs(),
    "singular": lambda m: [m.is_singular_input(x) for x in ("a", ["a"], (), [], np.array(["a"]))],
    "half a context": lambda m: _within(m, 8),
    "a name that nobody has": lambda m: m.no_such_name,
}


def _within(model: Any, dim: int) -> Any:
    with model.truncate_embeddings(dim):
        inside = (model.encode(TEXTS), model.get_embedding_dimension())
    with model.truncate_sentence_embeddings(dim):
        assert model.truncate_dim == dim
    return [*inside, model.encode("a dog runs")]


@pytest.mark.parametrize("name", CALLS)
def test_each_call_gives_what_it_gives_there(name: str, ours: Any, reference: Any) -> None:
    same(outcome(CALLS[name], ours), outcome(CALLS[name], reference))


@pytest.mark.parametrize("function", compat.SimilarityFunction.possible_values())
def test_each_similarity(function: str, pair: Any) -> None:
    from sentence_transformers import SentenceTransformer, SimilarityFunction

    both = [
        kind(str(place), similarity_fn_name=function)
        for kind, place in ((compat.SentenceTransformer, pair.directory), (SentenceTransformer, pair.checkpoint))
    ]
    for given in (VECTORS, torch.from_numpy(VECTORS), list(VECTORS)):
        same(both[0].similarity(given, given), both[1].similarity(given, given), 1e-4)  # cdist sums squares otherwise
        same(both[0].similarity_pairwise(given, given), both[1].similarity_pairwise(given, given))
    both[0].similarity_fn_name = SimilarityFunction(function)  # the other library's member
    assert both[0].similarity_fn_name == function
    both[0].similarity_fn_name = compat.SimilarityFunction.DOT
    assert both[0].similarity_fn_name == "dot"
    both[0].close()


@pytest.mark.parametrize("wrong", ["maxsim", "sine", 3])
def test_other_similarities_are_refused(wrong: Any, ours: Any, reference: Any) -> None:
    for model in (ours, reference):
        with pytest.raises(ValueError, match=str(wrong)):
            model.similarity_fn_name = wrong
    assert ours.similarity_fn_name == reference.similarity_fn_name


def test_a_model_that_does_not_normalize_does_when_asked(export_pair: Any) -> None:
    pair = export_pair(normalize=False)
    model = compat.SentenceTransformer(str(pair.directory))
    for options in (
        {},
        {"normalize_embeddings": True},
        {"truncate_dim": 8},
        {"truncate_dim": 8, "normalize_embeddings": True},
    ):
        same(model.encode(TEXTS, **options), pair.reference.encode(TEXTS, **options))
    model.close()


CONSTRUCTIONS: dict[str, dict[str, Any]] = {
    "prompts": {"prompts": {"query": "ask: ", "mine": "the new "}},
    "prompts taken away": {"prompts": {"query": "", "document": ""}},
    "default prompt": {"default_prompt_name": "query"},
    "unknown default prompt": {"default_prompt_name": "nothing"},
    "truncate_dim": {"truncate_dim": 8},
    "device": {"device": "cpu"},
    "similarity": {"similarity_fn_name": "dot"},
    "harmless": {"trust_remote_code": False, "local_files_only": True, "token": None, "revision": None},
    "model_kwargs": {"model_kwargs": {"attn_implementation": "eager", "torch_dtype": "float32"}},
    "dtype auto": {"model_kwargs": {"dtype": "auto"}},
    "dtype of torch": {"model_kwargs": {"dtype": torch.float32}},
}


@pytest.mark.parametrize("name", CONSTRUCTIONS)
def test_each_argument_of_the_constructor(name: str, pair: Any) -> None:
    from sentence_transformers import SentenceTransformer

    results: list[Any] = []
    for kind, place in ((compat.SentenceTransformer, pair.directory), (SentenceTransformer, pair.checkpoint)):
        try:
            model = kind(str(place), **CONSTRUCTIONS[name])
            found = [model.encode(TEXTS), model.encode_query(TEXTS), model.encode_document(TEXTS)]
            results.append(
                [*found, model.prompts, model.default_prompt_name, model.truncate_dim, model.similarity_fn_name]
            )
        except Exception as error:  # noqa: BLE001 - compared with the other's
            results.append(error)
    same(results[0], results[1])


def test_tokenizer_arguments_set_the_limit(pair: Any) -> None:
    given: tuple[dict[str, Any], ...] = (
        {"tokenizer_kwargs": {"model_max_length": 7}},
        {"processor_kwargs": {"model_max_length": 7}},
    )
    for options in given:
        model = compat.SentenceTransformer(str(pair.directory), **options)
        assert model.max_seq_length == 7
        same(model.preprocess(TEXTS)["input_ids"].shape[1], 7)


def test_the_limit_can_be_set(ours: Any, reference: Any) -> None:
    before = ours.max_seq_length
    try:
        for limit in (6, 40):
            ours.max_seq_length = reference.max_seq_length = limit
            same(ours.encode(TEXTS), reference.encode(TEXTS))
    finally:
        ours.max_seq_length = reference.max_seq_length = before


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "quantization": ({"model_kwargs": {"load_in_8bit": True}}, "precision='int8'"),
    "quantization config": ({"model_kwargs": {"quantization_config": object()}}, "precision='int8'"),
    "unknown": ({"model_kwargs": {"num_layers": 3}}, r"model_kwargs\['num_layers'\]"),
    "configuration": ({"config_kwargs": {"hidden_act": "relu"}}, r"config_kwargs\['hidden_act'\]"),
    "truncation side": ({"tokenizer_kwargs": {"truncation_side": "left"}}, "export again"),
    "slow tokenizer": ({"tokenizer_kwargs": {"use_fast": False}}, "fast tokenizer"),
    "device": ({"device": "mps"}, "'cuda:1'"),
    "backend": ({"backend": "jax"}, "openvino"),
    "dtype": ({"model_kwargs": {"dtype": "int3"}}, "bfloat16"),
    "precision": ({"model_kwargs": {"dtype": "float16"}}, "fp16"),
    "graph": ({"model_kwargs": {"file_name": "model_qint8.onnx"}}, "precision='int8'"),
    "provider": ({"model_kwargs": {"provider": "NoProvider"}}, "CUDAExecutionProvider"),
    "modules": ({"modules": [1]}, "give that directory"),
    "not a dict": ({"model_kwargs": 3}, "expected a dict"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_is_refused_with_what_can(name: str, pair: Any) -> None:
    options, hint = REFUSED[name]
    with pytest.raises(errors.InvalidInputError, match=hint):
        compat.SentenceTransformer(str(pair.directory), **options)


def test_graphs_are_chosen_by_their_files_and_providers_by_onnxruntimes_names(pair: Any) -> None:
    file = "model.cpu.fp32.onnx"
    assert (pair.directory / file).is_file()
    kwargs = {"file_name": file, "provider": "CPUExecutionProvider", "export": False}
    model = compat.SentenceTransformer(str(pair.directory), backend="onnx", model_kwargs=kwargs)
    assert (model._model.target, model._model.precision) == ("cpu", "fp32")
    assert compat.SentenceTransformer(str(pair.directory), target="portable", threads=1)._model.threads == 1


@pytest.mark.parametrize("name", ["no/such/place", "./nowhere"])
def test_a_missing_model_is_the_error_that_it_is_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        compat.SentenceTransformer(name, local_files_only=True)
    assert isinstance(caught.value, errors.ModelNotFoundError)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(NotADirectoryError):
        compat.SentenceTransformer(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["fit", "train", "parameters", "state_dict", "load_adapter", "modules"])
def test_what_is_torchs_says_why_it_is_not_here(name: str, ours: Any) -> None:
    assert not hasattr(ours, name)
    with pytest.raises(AttributeError, match=r"export|torch modules"):
        getattr(ours, name)
    with pytest.raises(TypeError, match="no torch modules"):
        ours[0]


def test_precision_is_not_changed_behind_anyones_back(ours: Any) -> None:
    assert ours.float() is ours
    assert ours.to(torch.float32) is ours
    for change in (
        ours.half,
        ours.bfloat16,
        lambda: ours.to(torch.float16),
        lambda: ours.to(dtype=torch.float16),
        lambda: ours.to("cpu", torch.float16),
        lambda: ours.to(device="cpu", dtype=torch.float16),
    ):
        with pytest.raises(errors.InvalidInputError, match="load the model with precision="):
            change()
    with pytest.raises(errors.InvalidInputError, match="pooling is part of the graph"):
        ours.set_pooling_include_prompt(False)
    ours.set_pooling_include_prompt(True)


def test_settings_of_a_call_that_preprocess_does_not_have_are_refused(ours: Any) -> None:
    for options in ({"processing_kwargs": {"text": {"max_length": 4}}}, {"padding": True}):
        for call in (ours.preprocess, ours.tokenize):
            with pytest.raises(errors.InvalidInputError, match=next(iter(options))):
                call(TEXTS, **options)


def test_vectors_of_tokens_are_those_before_pooling(pair: Any, reference: Any, tmp_path: Path) -> None:
    """Of an export with graphs of token states; without one they are refused."""
    from exports import quick

    from fastembed_rt_export.pipeline import ExportOptions

    ours = compat.SentenceTransformer(str(pair.directory))
    for wanted in ("token_embeddings", None):
        with pytest.raises((errors.InvalidInputError, errors.ModelFormatError)):
            ours.encode(TEXTS, output_value=wanted)
    with pytest.raises(errors.InvalidInputError, match="'layers' is not known"):
        ours.encode(TEXTS, output_value="layers")
    if "tokens" not in {field.name for field in dataclasses.fields(ExportOptions)}:
        return
    quick(pair.checkpoint, tmp_path / "model", tokens=True)
    ours = compat.SentenceTransformer(str(tmp_path / "model"))
    for options in ({}, {"prompt_name": "query"}, {"convert_to_tensor": True, "normalize_embeddings": True}):
        for given in (TEXTS, TEXTS[0], []):
            same(
                ours.encode(given, output_value="token_embeddings", **options),
                reference.encode(given, output_value="token_embeddings", **options),
            )
    for precision in ("binary", "ubinary", "int8", "uint8"):
        for given in (TEXTS, TEXTS[0], []):
            form: dict[str, Any] = {"output_value": "token_embeddings", "precision": precision}
            same(ours.encode(given, **form), reference.encode(given, **form))
    with pytest.raises(errors.InvalidInputError, match="output_value=None"):
        ours.encode(TEXTS, output_value=None, precision="int8")
    # There everything is padded to the longest text of a batch: one at a time, nothing is.
    for theirs, found in zip(
        reference.encode(TEXTS, output_value=None, batch_size=1, truncate_dim=8),
        ours.encode(TEXTS, output_value=None, truncate_dim=8),
        strict=True,
    ):
        same(ids_of(found), ids_of(theirs))
    same(ids_of(ours.encode(TEXTS[0], output_value=None)), ids_of(reference.encode(TEXTS[0], output_value=None)))
