"""SentenceTransformer of fastembed_rt.compat and of sentence-transformers, each call in both."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_results import outcome, same

from fastembed_rt import EmbeddingModel, errors
from fastembed_rt.compat import sentence_transformers as compat

TEXTS = ["a dog runs", "the house is red", "", "new city light: 1 2 3 4 5 6 7 8 9 0 " * 9]
VECTORS = np.random.default_rng(0).normal(size=(4, 24)).astype(np.float32)
Call = Callable[[Any], Any]

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
    "preprocess": lambda m: _ids(m.preprocess(TEXTS)),
    "preprocess of nothing": lambda m: m.preprocess([]),
    "preprocess with a prompt": lambda m: _ids(m.preprocess(TEXTS, prompt="the new ")),
    "tokenize": lambda m: _ids(m.tokenize(TEXTS)),
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


def _ids(features: Any) -> dict[str, Any]:
    """Without token types, which BERT's tokenizers give and the plain ones of these checkpoints do not."""
    return {name: value for name, value in features.items() if name != "token_type_ids"}


def _within(model: Any, dim: int) -> Any:
    with model.truncate_embeddings(dim):
        inside = (model.encode(TEXTS), model.get_embedding_dimension())
    with model.truncate_sentence_embeddings(dim):
        assert model.truncate_dim == dim
    return [*inside, model.encode("a dog runs")]


@pytest.fixture(scope="module")
def ours(pair: Any) -> Iterator[Any]:
    model = compat.SentenceTransformer(str(pair.directory))
    yield model
    model.close()


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


def test_pools_give_equal_vectors(ours: Any, reference: Any) -> None:
    texts = TEXTS * 8
    alone = ours.encode(texts)
    for devices in (None, ["cpu", "cpu"]):
        pool = ours.start_multi_process_pool(devices)
        assert set(pool) == {"input", "output", "processes"}
        assert np.array_equal(ours.encode(texts, pool=pool, chunk_size=3), alone)
        assert np.array_equal(ours.encode_multi_process(texts, pool, batch_size=4), alone)
        by_place = (None, "the new ", 4, 3, False, "binary", True, 8)  # chunk_size before show_progress_bar
        codes = ours.encode(texts, prompt="the new ", precision="binary", normalize_embeddings=True, truncate_dim=8)
        assert np.array_equal(ours.encode_multi_process(texts, pool, *by_place), codes)
        ours.stop_multi_process_pool(pool)
        compat.SentenceTransformer.stop_multi_process_pool(pool)
    assert np.array_equal(ours.encode(texts, device=["cpu", "cpu"]), alone)
    same(alone, reference.encode(texts))
    with pytest.raises(ValueError, match="chunk_size"):
        ours.encode(texts, device=["cpu"], chunk_size=0)


def test_copies_and_pickles_keep_what_was_set(pair: Any) -> None:
    model = compat.SentenceTransformer(str(pair.directory), truncate_dim=8, threads=1)
    model.max_seq_length = 9
    model.prompts["mine"] = "the new "
    model.similarity_fn_name = "dot"
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.encode(TEXTS, prompt_name="mine"), model.encode(TEXTS, prompt_name="mine"))
        assert (other.max_seq_length, other.similarity_fn_name, other._model.threads) == (9, "dot", 1)
        other.max_seq_length = 5
        other.prompts.clear()
    assert model.max_seq_length == 9
    assert model.prompts["mine"] == "the new "


def test_copies_share_an_engine_and_refer_to_themselves(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = compat.SentenceTransformer(str(pair.directory))
    model.prompts["mine"] = "the new "
    opened: list[Any] = []
    of = compat.SentenceTransformer._opened

    def watched(self: Any, *given: Any) -> Any:
        opened.append(of(self, *given))
        return opened[-1]

    monkeypatch.setattr(compat.SentenceTransformer, "_opened", watched)
    copies = [copy.copy(model), copy.deepcopy(model)]
    for other in copies:
        np.testing.assert_array_equal(other.encode(TEXTS), model.encode(TEXTS))
        other.max_seq_length = 5
    assert not opened
    assert copies[0]._model._engine is copies[1]._model._engine
    assert model.max_seq_length == 16
    deep, arrived = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert [entry is arrived._model for entry in opened] == [True], "once"
    for other in (deep, arrived):
        assert other.prompts == model.prompts
        assert other.prompts is not model.prompts
        assert other.model_card_data.model is other


def test_what_is_pickled_has_no_hub_token(pair: Any) -> None:
    model = compat.SentenceTransformer(str(pair.directory), token="a-secret")
    packed = pickle.dumps(model)
    assert b"a-secret" not in packed
    assert np.array_equal(pickle.loads(packed).encode(TEXTS), model.encode(TEXTS))


def test_settings_of_a_call_that_preprocess_does_not_have_are_refused(ours: Any) -> None:
    for options in ({"processing_kwargs": {"text": {"max_length": 4}}}, {"padding": True}):
        for call in (ours.preprocess, ours.tokenize):
            with pytest.raises(errors.InvalidInputError, match=next(iter(options))):
                call(TEXTS, **options)


def test_what_is_saved_opens_with_what_was_set(pair: Any, tmp_path: Path) -> None:
    model = compat.SentenceTransformer(str(pair.directory), default_prompt_name="query", similarity_fn_name="dot")
    model.max_seq_length = 9
    model.prompts["mine"] = "the new "
    model.save_pretrained(str(tmp_path / "saved"))
    model.save(str(tmp_path / "saved"), create_model_card=False)  # again, over the first
    again = compat.SentenceTransformer(str(tmp_path / "saved"))
    assert np.array_equal(again.encode(TEXTS), model.encode(TEXTS))
    assert (again.prompts, again.default_prompt_name) == (model.prompts, "query")
    assert (again.similarity_fn_name, again.max_seq_length) == ("dot", 9)
    plain = compat.SentenceTransformer(str(pair.directory))
    assert plain.max_seq_length == 16  # the source is as it was
    plain.save(str(tmp_path / "bare"), create_model_card=False)
    assert (tmp_path / "bare" / "manifest.json").read_bytes() == (pair.directory / "manifest.json").read_bytes()
    assert not (tmp_path / "bare" / "README.md").exists()


def test_it_is_pushed_with_the_calls_of_huggingface_hub(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import CommitInfo, HfApi, RepoUrl

    sent: dict[str, Any] = {}

    def upload(self: Any, *, folder_path: str, **options: Any) -> CommitInfo:
        sent.update(options, files={file.name for file in Path(folder_path).iterdir()})
        url = f"https://huggingface.co/{options['repo_id']}/commit/0123"
        pr = "https://huggingface.co/me/small/discussions/2"
        return CommitInfo(commit_url=url, commit_message="", commit_description="", oid="0123", pr_url=pr)

    monkeypatch.setattr(
        HfApi,
        "create_repo",
        lambda self, repo_id, **_: RepoUrl(f"https://huggingface.co/me/{repo_id.removeprefix('me/')}"),
    )
    monkeypatch.setattr(HfApi, "create_branch", lambda self, repo_id, branch, **_: sent.update(made=branch))
    monkeypatch.setattr(HfApi, "file_exists", lambda self, *_, **__: True)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert huggingface_hub.HfApi is HfApi
    assert ours.push_to_hub("small") == "https://huggingface.co/me/small/commit/0123"
    assert "manifest.json" in sent["files"]
    assert "README.md" not in sent["files"]  # the one that is there stays
    assert sent["revision"] is None
    url = ours.push_to_hub("small", replace_model_card=True, revision="new", create_pr=True, commit_message="Mine")
    assert url.endswith("/discussions/2")
    assert (sent["made"], sent["commit_message"], sent["create_pr"]) == ("new", "Mine", True)
    assert "README.md" in sent["files"]
    assert ours.model_card_data.model_id == "me/small"
    for repo_id in ("small", "me/small"):
        assert ours.save_to_hub(repo_id, organization="me").endswith("/commit/0123")
    with pytest.raises(ValueError, match="not the owner"):
        ours.save_to_hub("you/small", organization="me")


@pytest.fixture(scope="module")
def routed_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model with an encoder for queries (8 tokens) and one for documents (20), and its checkpoint."""
    import routed
    from exports import quick
    from sentence_transformers.base.modules import Router

    root = tmp_path_factory.mktemp("routed")
    route = Router.for_query_document(
        query_modules=routed.transformer(root / "q", processor_kwargs={"model_max_length": 8}),
        document_modules=routed.transformer(root / "d", "mpnet"),
    )
    routed.save(root / "checkpoint", route, prompts={"query": "the red ", "document": "a new "})
    quick(root / "checkpoint", root / "model")
    return root / "model", root / "checkpoint"


ROUTED_CALLS: dict[str, Call] = {
    "queries": lambda m: m.encode_query(TEXTS),
    "documents": lambda m: m.encode_document(TEXTS),
    "task query": lambda m: m.encode(TEXTS, task="query"),
    "a task that has no route": lambda m: m.encode(TEXTS, task="foo"),
    "documents normalized": lambda m: m.encode_document(TEXTS, convert_to_tensor=True, normalize_embeddings=True),
    "ids of queries": lambda m: _ids(m.preprocess(TEXTS, task="query")),
    "ids of documents": lambda m: _ids(m.preprocess(TEXTS, task="document")),
    "ids of the default": lambda m: _ids(m.preprocess(TEXTS)),
    "ids for a task that has no route": lambda m: m.preprocess(TEXTS, task="foo"),
}


def test_a_routed_model_encodes_queries_and_documents_apart(routed_pair: tuple[Path, Path]) -> None:
    from sentence_transformers import SentenceTransformer

    model, checkpoint = routed_pair
    ours, theirs = compat.SentenceTransformer(str(model)), SentenceTransformer(str(checkpoint), device="cpu")
    for call in ROUTED_CALLS.values():
        same(outcome(call, ours), outcome(call, theirs))
    ours.close()


@pytest.mark.parametrize("limit", [None, 6])
def test_a_routed_model_is_saved_with_the_prompts_and_limits_of_all_its_encoders(
    limit: int | None, routed_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    model, checkpoint = routed_pair
    both = compat.SentenceTransformer(str(model)), SentenceTransformer(str(checkpoint), device="cpu")
    again = []
    for kind, changed, place in zip((compat.SentenceTransformer, SentenceTransformer), both, "ab", strict=True):
        changed.prompts["query"], changed.prompts["document"] = "the new red ", "light "
        if limit is not None:
            changed.max_seq_length = limit
        changed.save_pretrained(str(tmp_path / place))
        again.append(kind(str(tmp_path / place), device="cpu"))
    for name in ("queries", "documents"):
        call = ROUTED_CALLS[name]
        assert np.array_equal(call(again[0]), call(both[0]))
        same(call(again[0]), call(again[1]))
    plain = EmbeddingModel(tmp_path / "a")
    assert np.array_equal(plain.encode_query(TEXTS), both[0].encode_query(TEXTS))
    compat.SentenceTransformer(str(model)).save(str(tmp_path / "unchanged"))
    assert (tmp_path / "unchanged" / "manifest.json").read_bytes() == (model / "manifest.json").read_bytes()


def test_a_routed_models_fingerprint_for_a_role_is_that_of_its_encoder(routed_pair: tuple[Path, Path]) -> None:
    model = EmbeddingModel(routed_pair[0])
    names = [model.fingerprint(role=role) for role in ("query", "document")]
    assert names == [EmbeddingModel(routed_pair[0], route="query").fingerprint(prompt_name="query"), names[1]]
    files = [name.split("-")[0] for name in names]
    assert files[0] != files[1] == model.fingerprint().split("-")[0]


def test_a_routed_model_that_was_pickled_keeps_the_limit_of_each_encoder(routed_pair: tuple[Path, Path]) -> None:
    model = compat.SentenceTransformer(str(routed_pair[0]))
    other = pickle.loads(pickle.dumps(model))
    assert np.array_equal(other.encode_query(TEXTS), model.encode_query(TEXTS))
    assert np.array_equal(other.encode_document(TEXTS), model.encode_document(TEXTS))


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
        same(_ids(found), _ids(theirs))
    same(_ids(ours.encode(TEXTS[0], output_value=None)), _ids(reference.encode(TEXTS[0], output_value=None)))
