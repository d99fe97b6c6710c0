"""Asymmetric models and static embeddings beside sentence-transformers: one directory, an encoder for each role."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    FP32_FILES,
    LETTERS,
    OWN_FP32,
    TEXTS,
    WORDS,
    change_json,
    exported_vectors,
    save_transformers,
    write_json,
)
from routed import dense, normalize, router, save, static, transformer
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tolerances import REORDERED, close

from fastembed_rt import EmbeddingModel, native
from fastembed_rt.cli import main
from fastembed_rt.errors import InvalidInputError, ModelFormatError
from fastembed_rt.manifest import parse, read
from fastembed_rt_export.errors import CheckpointError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")

PROMPTS = {"query": "query: ", "document": "the new "}


def reference(checkpoint: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)


def assert_agrees(checkpoint: Path, output: Path, **options: Any) -> None:
    """Queries, documents and texts without a role are those of sentence-transformers."""
    export(str(checkpoint), ExportOptions(output=output, verify=False, **options))
    theirs = reference(checkpoint)
    with EmbeddingModel(output) as model:
        for name in ("encode_query", "encode_document", "encode"):
            found, wanted = getattr(model, name)(TEXTS), getattr(theirs, name)(TEXTS)
            close(found, wanted, what=name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Static vectors for queries, a transformer for documents, and what follows for both."""
    folder = tmp_path_factory.mktemp("routes")
    document = [*transformer(folder / "bert", max_seq_length=20), dense(24)]
    route = router([static(folder / "static")], document, default_route="document")
    return save(folder / "checkpoint", route, normalize(), prompts=PROMPTS)


@pytest.fixture(scope="module")
def directory(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("routes") / "out"
    export(str(checkpoint), ExportOptions(output=output, verify=False))
    return output


@pytest.mark.parametrize("default", ["query", "document", None])
def test_heads_of_their_own_behind_one_transformer(default: str | None, tmp_path: Path) -> None:
    route = router([dense(seed=1)], [dense(seed=2), normalize()], default_route=default)
    assert_agrees(save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route), tmp_path / "out")


def test_encoders_of_their_own(checkpoint: Path, tmp_path: Path) -> None:
    assert_agrees(checkpoint, tmp_path / "out")
    other = router(transformer(tmp_path / "bert"), transformer(tmp_path / "roberta", "roberta", max_seq_length=30))
    assert_agrees(save(tmp_path / "two", other, normalize()), tmp_path / "out-two")


def test_routes_by_task_and_modality(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Router

    route = Router(
        {"short": [dense(seed=1)], "long": [dense(seed=2)], "rest": [dense(seed=3)]},
        route_mappings={("query", "text"): "short", ("document", None): "long", (None, None): "rest"},
    )
    assert_agrees(save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route), tmp_path / "out")
    made = read(tmp_path / "out")
    assert (made.route, {role: route.route for role, route in made.routes.items()}) == (
        "rest",
        {"query": "short", "document": "long"},
    )


@pytest.mark.parametrize(
    "names", [("short", "text"), ("query", "text"), ("text", "short"), ("document", "query", "text")]
)
@pytest.mark.parametrize("default", ["first", None])
def test_a_route_named_for_texts_takes_them_before_the_default_one(
    tmp_path: Path, names: tuple[str, ...], default: str | None
) -> None:
    from sentence_transformers.base.modules import Router

    chains = {name: [dense(seed=k)] for k, name in enumerate(names)}
    route = Router(chains, default_route=default and names[0], allow_empty_key=default is not None)
    assert_agrees(save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route), tmp_path / "out")
    made = read(tmp_path / "out")
    assert made.route == "text"
    assert set(made.routes) == {"query", "document"} & set(names)


def test_a_mapping_counts_more_than_a_route_named_for_texts(tmp_path: Path) -> None:
    from sentence_transformers.base.modules import Router

    route = Router(
        {"text": [dense(seed=1)], "rest": [dense(seed=2)]},
        route_mappings={(None, "text"): "rest", ("query", None): "text"},
    )
    assert_agrees(save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route), tmp_path / "out")
    assert read(tmp_path / "out").route == "rest"


def test_an_old_asym_module(tmp_path: Path) -> None:
    route = router([dense(seed=1)], [dense(seed=2)])
    checkpoint = save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route)
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Asym"
    write_json(checkpoint / "modules.json", modules)
    assert_agrees(checkpoint, tmp_path / "out")


def test_the_gate_compares_every_route(checkpoint: Path, tmp_path: Path) -> None:
    # Random weights lose more than trained ones.
    options = ExportOptions(output=tmp_path / "out", precisions=("fp32", "int8"), min_cosine=0.95)
    made = export(str(checkpoint), options).manifest
    files = {f"{folder}model{kind}.onnx" for folder in ("", "query/") for kind in ("", ".cpu.fp32", ".cpu.int8")}
    files |= {f"{folder}{file}" for folder in ("", "query/") for file in OWN_FP32}
    files |= {f"{folder}model.native.int8.onnx" for folder in ("", "query/") if native.kernels()}
    assert set(made.parity["variants"]) == files
    assert set(made.routes["query"].parity["variants"]) == {file for file in files if file.startswith("query/")}
    assert read(tmp_path / "out") == made
    with EmbeddingModel(tmp_path / "out", precision="int8") as model:
        found = model.encode_query(TEXTS[2])
    assert float(found @ reference(checkpoint).encode_query(TEXTS[2])) > 0.99


def test_the_gate_refuses_a_route_that_is_another(
    checkpoint: Path, directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "other")
    table = np.random.default_rng(5).normal(size=(101, 24)).astype(np.float32)
    save_file({"embedding.weight": table}, other / "query_0_StaticEmbedding" / "model.safetensors")
    assert main(["verify", str(directory), "--against", str(other)]) == ParityError.exit_code
    said = capsys.readouterr().err
    assert f"query/{FP32_FILES[0]}: " in said
    assert "are out of bounds" in said


def test_one_route_alone(directory: Path, checkpoint: Path) -> None:
    theirs = reference(checkpoint)
    with EmbeddingModel(directory, route="query") as model:
        assert model.manifest.modules[0].startswith("StaticEmbedding")
        close(model.encode_query(TEXTS), theirs.encode_query(TEXTS))
    with EmbeddingModel(directory, route="document") as model:
        assert model.manifest.routes == {}
        close(model.encode_document(TEXTS), theirs.encode_document(TEXTS))
    with pytest.raises(InvalidInputError, match="route 'title' is not known; known: query, document"):
        EmbeddingModel(directory, route="title")


def test_closing_closes_every_encoder(directory: Path) -> None:
    model = EmbeddingModel(directory)
    other = model.for_role("query")
    assert other is model.for_role("query")
    assert model.for_role("document") is model
    model.close()
    for closed in (model, other):
        with pytest.raises(InvalidInputError, match="the model is closed"):
            closed.encode("a")


def test_options_reach_every_encoder(directory: Path) -> None:
    with EmbeddingModel(directory, truncate_dim=5, prompts={"query": "the "}) as model:
        assert model.encode_query("a cat").shape == (5,)
        np.testing.assert_allclose(np.linalg.norm(model.encode_query("a cat")), 1.0, rtol=1e-5)
        np.testing.assert_array_equal(model.encode_query("a cat"), model.encode_query("the a cat", prompt=""))


def test_a_default_prompt_that_is_assigned_is_that_of_every_encoder(directory: Path) -> None:
    with EmbeddingModel(directory) as model:
        queries = model.for_role("query")
        plain, wanted = queries.encode("a cat"), queries.encode("a cat", prompt_name="query")
        assert np.abs(plain - wanted).max() > 1e-3
        for name, found in (("query", wanted), (None, plain)):
            model.default_prompt_name = name
            np.testing.assert_array_equal(queries.encode("a cat"), found)
    with EmbeddingModel(directory, default_prompt_name="query") as model:
        model.default_prompt_name = None  # before it is loaded
        np.testing.assert_array_equal(model.for_role("query").encode("a cat"), plain)


def test_the_command_line(directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(directory)]) == 0
    said = capsys.readouterr().out
    assert "query texts: StaticEmbedding(101 tokens) -> Normalize" in said
    assert "query/model.onnx" in said
    (tmp_path / "texts.txt").write_text("a cat\n")
    for route in ("query", "document"):
        output = tmp_path / f"{route}.npy"
        command = ["embed", str(directory), str(tmp_path / "texts.txt"), "-o", str(output), "--route", route]
        assert main([*command, "--prompt", ""]) == 0
        with EmbeddingModel(directory, route=route) as model:
            close(np.load(output), [model.encode("a cat", prompt="")], REORDERED)
    altered = Path(shutil.copytree(directory, tmp_path / "altered"))
    (altered / "query" / "model.onnx").write_bytes(b"altered")
    assert main(["info", str(altered)]) == 3
    assert "query/model.onnx ALTERED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"types": {}}, "names the module 'query_0_Dense' of route 'query' and not its type"),
        ({"structure": {}}, "has no types and structure"),
        (
            {"structure": {"query": ["../x"], "document": []}, "types": {"../x": "sentence_transformers.X"}},
            "outside of",
        ),
        ({"types": {"query_0_Dense": "mine.Dense"}}, "route 'query' has a mine.Dense, code of the checkpoint's own"),
        ({"types": {"query_0_Dense": "sentence_transformers.models.Router"}}, "a Router inside the Router"),
        ({"parameters": {"default_route": "title"}}, "no route 'title'; there are: query, document"),
        ({"parameters": {"default_route": {"a": 1}}}, "no route {'a': 1}; there are: query, document"),
        ({"parameters": {"route_mappings": {"('query', None)": ["query"]}}}, "there are: query, document"),
        ({"parameters": {"route_mappings": {"query": "query"}}}, "a route for 'query', expected"),
        ({"parameters": {"route_mappings": {"('query', None)": "title"}}}, "to 'title'; there are: query, document"),
        ({"parameters": {"route_mappings": 3}}, "route_mappings 3"),
    ],
)
def test_a_router_that_says_nothing_sound_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    route = router([dense(seed=1)], [dense(seed=2)])
    checkpoint = save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route)
    change_json(checkpoint / "2_Router" / "router_config.json", **changes)
    with pytest.raises((CheckpointError, UnsupportedCheckpointError), match=message):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out", verify=False))


def test_what_routes_cannot_be(checkpoint: Path, directory: Path, tmp_path: Path) -> None:
    from fastembed_rt_export.checkpoint.read import Overrides

    with pytest.raises(InvalidInputError, match="--pooling and --normalize are not for a model with routes"):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out", overrides=Overrides(normalize=False)))
    uneven = save(tmp_path / "uneven", *transformer(tmp_path / "bert"), router([dense(8, seed=1)], [dense(6, seed=2)]))
    with pytest.raises(UnsupportedCheckpointError, match="vectors of 6 numbers, route 'query' of 8"):
        export(str(uneven), ExportOptions(output=tmp_path / "out", verify=False))
    body = json.loads(read(directory).to_json())
    with pytest.raises(ModelFormatError, match="a route for 'title' is not known"):
        parse(json.dumps({**body, "routes": {"title": body["routes"]["query"]}}))
    with pytest.raises(ModelFormatError, match="the route for 'query' gives vectors of 9 numbers, not 24"):
        parse(json.dumps({**body, "routes": {"query": {**body["routes"]["query"], "dim": 9}}}))


def test_max_length_and_truncate_dim_are_for_all_routes(checkpoint: Path, tmp_path: Path) -> None:
    from fastembed_rt_export.checkpoint.read import Overrides

    overrides = Overrides(max_length=9, truncate_dim=7)
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "out", overrides=overrides)).manifest
    assert (made.max_length, made.dim, made.routes["query"].dim) == (9, 7, 7)
    assert made.parity["status"] == "passed"


@pytest.mark.parametrize("normalized", [False, True])
def test_static_embeddings(normalized: bool, tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoint", static(tmp_path / "static"), *([normalize()] if normalized else []))
    long = " ".join([*WORDS, *LETTERS] * 30)  # without a limit
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "out", precisions=("fp32", "int8"))).manifest
    assert made.parity["status"] == "passed"
    wanted = reference(checkpoint).encode([*TEXTS, long])
    for options in ({}, {"target": "portable"}):
        with EmbeddingModel(tmp_path / "out", **options) as model:  # type: ignore[arg-type]
            close(model.encode([*TEXTS, long]), wanted)
            assert model.count_tokens("a cat") == 2  # no special tokens
            assert not model.encode("").any()
    assert made.variants[-1].notes["embedding"] == "int8"


@pytest.mark.parametrize("whole", [False, True], ids=["float16", "int8"])
def test_model2vec_tables_with_mapping_and_weights(tmp_path: Path, whole: bool) -> None:
    checkpoint, random = tmp_path / "checkpoint", np.random.default_rng(0)
    save_transformers(checkpoint)
    tokens = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).get_vocab_size()
    table = random.integers(-127, 128, (40, 12), np.int8) if whole else random.normal(size=(40, 12)).astype(np.float16)
    tensors = {
        "embeddings": table,
        "mapping": random.integers(0, 40, tokens),
        "weights": random.uniform(0.1, 2.0, tokens),
    }
    save_file(tensors, checkpoint / "model.safetensors")
    write_json(checkpoint / "config.json", {"model_type": "model2vec", "normalize": True})
    kinds = ((".", "StaticEmbedding"), ("1_Normalize", "Normalize"))
    modules = [
        {"idx": k, "name": str(k), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for k, (path, kind) in enumerate(kinds)
    ]
    write_json(checkpoint / "modules.json", modules)
    wanted = reference(checkpoint).encode(TEXTS)
    close(exported_vectors(checkpoint, tmp_path / "out"), wanted)
    made = read(tmp_path / "out")
    assert (made.source.model_type, made.modules) == ("static", (f"StaticEmbedding({tokens} tokens)", "Normalize"))


def test_a_tokenizer_saved_with_a_truncation_keeps_it(tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoint", static(tmp_path / "static"))
    file = checkpoint / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(7)
    tokenizer.save(str(file))
    wanted = reference(checkpoint).encode(TEXTS)
    close(exported_vectors(checkpoint, tmp_path / "out"), wanted)
    assert read(tmp_path / "out").max_length == 7


def test_a_saved_truncation_to_nothing_is_refused(tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoint", static(tmp_path / "static"))
    truncation = {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0}
    change_json(checkpoint / "tokenizer.json", truncation=truncation)
    with pytest.raises(CheckpointError, match=r"max_length 0 beside .* is not a number of tokens"):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out", verify=False))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": np.zeros((3, 2), np.float32)}, "neither 'embedding.weight' nor model2vec's 'embeddings'"),
        ({"embedding.weight": np.zeros(3, np.float32)}, r"a table of F32 \(3,\)"),
        ({"embeddings": np.zeros((200, 4), np.int8)}, r"a table of I8 \(200, 4\), expected floats"),
        (
            {"embeddings": np.zeros((200, 4), np.float32), "mapping": np.zeros(200, np.int64), "weights": np.ones(3)},
            r"a mapping of \(200,\) and weights of \(3,\)",
        ),
        (
            {"embeddings": np.zeros((200, 4), np.float32), "mapping": np.arange(200) + 3},
            "a mapping with 3 places beyond its table's 200 rows",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tensors: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoint", static(tmp_path / "static"))
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out", verify=False))


def test_options_that_a_static_embedding_does_not_have(tmp_path: Path) -> None:
    from fastembed_rt_export.checkpoint.read import Overrides

    checkpoint = save(tmp_path / "checkpoint", static(tmp_path / "static"))
    for overrides in (Overrides(pooling=("cls",)), Overrides(max_length=9)):
        with pytest.raises(InvalidInputError, match="not for a StaticEmbedding"):
            export(str(checkpoint), ExportOptions(output=tmp_path / "out", overrides=overrides))
    with pytest.raises(UnsupportedCheckpointError, match="built from its table, not traced"):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out", exporter="optimum"))


def test_a_table_is_not_for_cuda(tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoint", static(tmp_path / "static"))
    with pytest.raises(UnsupportedCheckpointError, match=r"target cuda runs encoders with attention"):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out", targets=("cuda",), verify=False))


def test_texts_and_cuts_of_routes_are_counted(directory: Path) -> None:
    with EmbeddingModel(directory) as model:
        long = "the cat runs under a tree " * 20
        model.encode_document([long, "a cat"])
        model.encode_query(["a cat"])
        assert (model.stats.texts, model.stats.truncated) == (3, 1)
        before = model.stats.tokens
        model.encode_query(["a cat"])
        assert model.stats.texts == 4 and model.stats.tokens > before


def test_a_limit_that_is_assigned_is_that_of_all_routes(directory: Path, checkpoint: Path) -> None:
    theirs = reference(checkpoint)
    long = "the cat runs under a tree " * 20
    with EmbeddingModel(directory) as model:
        model.encode_query("a cat")  # loaded before, and after
        model.max_length = 12
        for module in theirs[0].sub_modules["document"][:1]:
            module.max_seq_length = 12
        np.testing.assert_allclose(model.encode_document([long]), theirs.encode_document([long]), rtol=0, atol=1e-5)
        assert model.for_role("query").max_length == 12
