"""What routes have in common lies in the directory once, and runs once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkpoints import TEXTS, change_json, save_sentence_transformers
from exports import contents, quick
from routed import dense, normalize, router, save, transformer
from safetensors.numpy import load_file
from tolerances import close

from fastembed_rt import EmbeddingModel, native
from fastembed_rt.models.roles import WithRoles
from fastembed_rt_export.graph.common import LEAST_BYTES
from fastembed_rt_export.pipeline import ExportOptions, export

# bf16 is computed by our own operators alone.
PRECISIONS = ("fp32", *(("bf16",) if native.kernels() else ()), "int8")
WORST = {"bf16": 0.999, "int8": 0.9}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both routes the same modules, saved once for each."""
    folder = tmp_path_factory.mktemp("alike")
    chains = [transformer(folder / f"plain-{k}") for k in range(2)]
    return save(folder / "model", router(chains[0], chains[1], default_route="document"))


@pytest.fixture(scope="module")
def directory(checkpoint: Path) -> Path:
    out = checkpoint.with_name("onnx")
    quick(checkpoint, out, precisions=PRECISIONS, min_cosine=0.5)
    return out


def vectors(checkpoint: Path, call: str) -> Any:
    from sentence_transformers import SentenceTransformer

    return getattr(SentenceTransformer(str(checkpoint), device="cpu"), call)(TEXTS)


def test_equal_graphs_weights_and_tokenizers_are_one_file(directory: Path) -> None:
    found = contents(directory)
    assert not [name for name in found if name.startswith("query/") and name.endswith((".onnx", "tokenizer.json"))]
    large = [name for name, data in found.items() if len(data) > 20_000]
    assert len({found[name] for name in large}) == len(large)


def test_each_route_gives_its_vectors(checkpoint: Path, directory: Path) -> None:
    for precision in PRECISIONS:
        with EmbeddingModel(directory, precision=precision) as model:
            for call in ("encode", "encode_query", "encode_document"):
                found = getattr(model, call)(TEXTS)
                if precision == "fp32":
                    close(found, vectors(checkpoint, call))
    with EmbeddingModel(directory, route="query") as alone:
        close(alone.encode(TEXTS), vectors(checkpoint, "encode_query"))


def test_the_same_graph_is_loaded_once(directory: Path) -> None:
    with EmbeddingModel(directory) as model:
        model.encode_query("a cat")
        other = model.for_role("query")
        assert other is not model
        assert other._running() is model._running()
    with pytest.raises(Exception, match="closed"):
        other.encode("a cat")


def test_lengths_of_their_own_share_a_graph(tmp_path: Path) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "model", max_seq_length=40)
    change_json(checkpoint / "sentence_bert_config.json", query_length=8)
    quick(checkpoint, tmp_path / "onnx")
    with EmbeddingModel(tmp_path / "onnx") as model:
        assert (model.max_length, model.for_role("query").max_length) == (40, 8)
        assert model.for_role("query")._running() is model._running()
        close(model.encode_query(TEXTS), vectors(checkpoint, "encode_query"))
        close(model.encode(TEXTS), vectors(checkpoint, "encode"))


def test_other_graphs_stay_apart(tmp_path: Path) -> None:
    chains = [transformer(tmp_path / name, name) for name in ("bert", "mpnet")]
    made = save(tmp_path / "model", router([*chains[0], dense(seed=1)], [*chains[1], dense(seed=2)]))
    quick(made, tmp_path / "onnx")
    assert {"model.onnx", "query/model.onnx"} <= {
        name.replace("document", "query") for name in contents(tmp_path / "onnx")
    }
    with EmbeddingModel(tmp_path / "onnx") as model:
        routes: list[WithRoles] = [model.for_role(role) for role in ("query", "document")]
        assert routes[0]._running() is not routes[1]._running()
        for call in ("encode_query", "encode_document"):
            close(getattr(model, call)(TEXTS), vectors(made, call))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One transformer behind two heads."""
    folder = tmp_path_factory.mktemp("heads")
    body = transformer(folder / "plain")
    return save(
        folder / "model",
        router([*body, dense(seed=1), normalize()], [*body, dense(seed=2), normalize()], default_route="document"),
    )


@pytest.mark.parametrize("external", [False, True])
def test_one_transformer_behind_two_heads_lies_there_once(heads: Path, tmp_path: Path, external: bool) -> None:
    out = tmp_path / "onnx"
    made = quick(heads, out, precisions=PRECISIONS, min_cosine=0.5, external_data=external)
    (file,) = [file for file in heads.rglob("*.safetensors") if "Dense" not in str(file)]
    words = load_file(file)["embeddings.word_embeddings.weight"].tobytes()
    assert sum(data.count(words) for data in contents(out).values()) == 1
    (query,) = made.routes.values()
    for variant in query.variants:
        files = {record.file for record in variant.files}
        assert any(name.startswith("query.") for name in files)
        assert any(name.startswith("model.") for name in files)
    for precision in PRECISIONS:
        with EmbeddingModel(out, precision=precision) as model:
            for call in ("encode", "encode_query", "encode_document"):
                found, expected = getattr(model, call)(TEXTS), vectors(heads, call)
                if precision == "fp32":
                    close(found, expected)
                else:
                    assert np.sum(np.asarray(found) * expected, axis=1).min() > WORST[precision]


@pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
def test_bf16_has_weights_once_and_token_states_of_every_route(heads: Path, tmp_path: Path) -> None:
    out = tmp_path / "onnx"
    made = quick(heads, out, precisions=("bf16",), tokens=True)
    (query,) = made.routes.values()
    graphs = [encoder.variants[0].graph.file for encoder in (made, query)]
    assert graphs == ["model.native.bf16.onnx", "query.model.native.bf16.onnx"]
    weights = onnx.load(str(out / graphs[1]), load_external_data=False).graph.initializer
    large = [weight for weight in weights if np.prod(weight.dims) >= LEAST_BYTES / 2]
    places = {weight.external_data[0].value for weight in large}
    assert places == {f"{graphs[0]}.data"}, "tables and matrices of the transformer lie there once"
    with EmbeddingModel(out) as model:
        for call in ("encode", "encode_query", "encode_document"):
            assert np.sum(getattr(model, call)(TEXTS) * vectors(heads, call), axis=1).min() > WORST["bf16"]
        states = [getattr(model, call)(TEXTS[2:], output="tokens") for call in ("encode_query", "encode_document")]
    for ours, others in zip(*states, strict=True):  # of the transformer that both have
        np.testing.assert_array_equal(ours.vectors, others.vectors)


def test_graphs_under_the_names_of_other_tools_stand_alone(heads: Path, tmp_path: Path) -> None:
    quick(heads, tmp_path / "onnx", layout="hub")
    model = onnx.load(str(tmp_path / "onnx" / "query" / "model.onnx"), load_external_data=False)
    assert not [tensor.name for tensor in model.graph.initializer if tensor.external_data]


@pytest.mark.usefixtures("short_gate")
def test_the_gate_compares_both(checkpoint: Path, tmp_path: Path) -> None:
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "onnx")).manifest
    assert made.parity["status"] == "passed"
    assert all(made.parity["calls"][call]["compared"] for call in ("encode", "encode_query", "encode_document"))
    assert set(made.routes["query"].parity["variants"]) == set(made.parity["variants"])
