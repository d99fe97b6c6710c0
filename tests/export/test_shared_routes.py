"""What routes have in common lies in the directory once, and runs once."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import TEXTS, change_json, save_sentence_transformers
from exports import contents, quick
from routed import dense, router, save, transformer
from tolerances import close

from fastembed_rt import EmbeddingModel
from fastembed_rt.models.roles import WithRoles
from fastembed_rt_export.pipeline import ExportOptions, export


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both routes the same modules, saved once for each."""
    folder = tmp_path_factory.mktemp("alike")
    chains = [transformer(folder / f"plain-{k}") for k in range(2)]
    return save(folder / "model", router(chains[0], chains[1], default_route="document"))


@pytest.fixture(scope="module")
def directory(checkpoint: Path) -> Path:
    out = checkpoint.with_name("onnx")
    quick(checkpoint, out, precisions=("fp32", "int8"), min_cosine=0.5)
    return out


def vectors(checkpoint: Path, call: str) -> object:
    from sentence_transformers import SentenceTransformer

    return getattr(SentenceTransformer(str(checkpoint), device="cpu"), call)(TEXTS)


def test_equal_graphs_weights_and_tokenizers_are_one_file(directory: Path) -> None:
    found = contents(directory)
    assert not [name for name in found if name.startswith("query/") and name.endswith((".onnx", "tokenizer.json"))]
    large = [name for name, data in found.items() if len(data) > 20_000]
    assert len({found[name] for name in large}) == len(large)


def test_each_route_gives_its_vectors(checkpoint: Path, directory: Path) -> None:
    for precision in ("fp32", "int8"):
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
    chains = [transformer(tmp_path / f"plain-{k}") for k in range(2)]
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


def test_the_gate_compares_both(checkpoint: Path, tmp_path: Path) -> None:
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "onnx")).manifest
    assert made.parity["status"] == "passed"
    assert all(made.parity["calls"][call]["compared"] for call in ("encode", "encode_query", "encode_document"))
    assert set(made.routes["query"].parity["variants"]) == set(made.parity["variants"])
