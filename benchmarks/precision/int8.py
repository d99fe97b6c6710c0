"""How near INT8 vectors stay to full precision, on real texts and on degenerate ones, beside dynamic quantization.

    python -m benchmarks.precision.int8 MODEL_DIR [--reference CHECKPOINT] [--data DIR] [--texts 1000] [--dynamic]
    python -m benchmarks.precision.int8 MODEL_DIR --repeated

The directory has fp32 and int8. Expected vectors are those of sentence-transformers on torch with `--reference`, else
of the directory's fp32. `--dynamic`: onnxruntime's quantize_dynamic of model.onnx, per channel, is a row too.
`--repeated`: instead of all that, 30 words, each 20, 100 and 300 times.
No real text is among those that int8 is calibrated on; of the degenerate ones nothing, a blank and one emoji are.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fastembed_rt import EmbeddingModel, SparseModel
from fastembed_rt.manifest import SPARSE, read
from fastembed_rt.text.tokenizer import TextTokenizer

from ..data.fidelity import cosines
from ..data.scores import Vectors
from ..data.workloads import data_folder
from ..errors import printed
from ..report.table import table

# File of the data folder and its share of the texts.
SHARES = {
    "short_queries_squad_dev": 0.4,
    "medium_stsb_dev_sentences": 0.4,
    "paragraph_wikitext2": 0.1,
    "paragraph_xquad_contexts": 0.05,
    "long_wikitext2_articles": 0.05,
}
REPEATED = ("cat", "the", "hello world.", "это", "好", "ZZZZ", "?!", "0 1 2")
WORDS = (
    *("cat", "это", "the", "window", "run", "снег", "house", "1999", "水", "good", "and", "data", "ZZZZ", "of", "!"),
    *("мир", "hello", "computer", "running", "love", "Paris", "7", "слово", "ich", "que", "the,", "москва", "中"),
    *("emoji", "water"),
)
TIMES = (20, 100, 300)
LEAST = 0.985  # below it such a text is counted
SINGLE = ("", " ", "\n\t ", ".", "a", "?", "cat", "42", "好", "...", "-----", "😀", "\u200b")
CODE = "for (int i = 0; i < n; ++i) { a[i] += b[i] * c[i]; }\n"

Encode = Callable[[list[str]], Vectors]


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory with fp32 and int8")
    parser.add_argument("--data", help="folder with texts/ and unicode/")
    parser.add_argument("--reference", help="checkpoint for sentence-transformers on torch")
    parser.add_argument("--texts", type=int, default=1000, help="real texts")
    parser.add_argument("--dynamic", action="store_true", help="also onnxruntime's dynamic quantization")
    parser.add_argument("--repeated", action="store_true", help="texts of one word alone")
    args = parser.parse_args(words)
    return printed(repeated if args.repeated else measured, args)


def measured(args: argparse.Namespace) -> str:
    """The table."""
    data = data_folder(args.data)
    texts, odd = real_texts(data, args.texts), degenerate_texts(data)
    if args.reference:
        from sentence_transformers import SentenceTransformer

        torch = SentenceTransformer(args.reference, device="cpu")
        expected = torch.encode([*texts, *odd], batch_size=16, show_progress_bar=False)
    else:
        expected = encoder(Path(args.model), "fp32")([*texts, *odd])
    body = []
    with tempfile.TemporaryDirectory() as work:
        for name, encode in quantized(Path(args.model), Path(work) if args.dynamic else None).items():
            body.append([name, *texts_of(figures(encode([*texts, *odd]), expected, len(texts)))])
    head = ["cosine", f"{len(texts)} texts: mean", "p1", "min", f"{len(odd)} degenerate: mean", "min"]
    return table(head, body)


def repeated(args: argparse.Namespace) -> str:
    """The table of words that are said over and over."""
    names = [(word, times) for word in WORDS for times in TIMES]
    texts = [" ".join([word] * times) for word, times in names]
    expected = encoder(Path(args.model), "fp32")(texts)
    body = []
    for name, encode in quantized(Path(args.model), None).items():
        near = cosines(encode(texts), expected)
        word, times = names[int(near.argmin())]
        cells = texts_of((float(near.mean()), float(np.quantile(near, 0.1)), float(near.min())))
        body.append([name, *cells, f"{word} x {times}", str(int((near < LEAST).sum()))])
    return table([f"cosine of {len(texts)} texts of one word", "mean", "p10", "min", "of", f"below {LEAST}"], body)


def quantized(model: Path, work: Path | None) -> dict[str, Encode]:
    """What encodes with each INT8 graph of a directory; with a folder to work in, with dynamic quantization as well."""
    targets = [variant.target for variant in read(model).variants if variant.precision == "int8"]
    rows = {f"int8, {target}": encoder(model, "int8", target) for target in targets}
    return rows if work is None else {**rows, "dynamic": dynamic(model, work)}


def encoder(model: Path, precision: str, target: str | None = None) -> Encode:
    """Opens the directory for each call: texts to vectors (n, dim), those of a sparse model with their zeros."""

    def encode(texts: list[str]) -> Vectors:
        if read(model).task != SPARSE:
            with EmbeddingModel(model, precision=precision, target=target) as dense:
                found: Vectors = dense.encode(texts)
                return found
        with SparseModel(model, precision=precision, target=target) as sparse:
            return np.stack([vector.to_dense() for vector in sparse.encode(texts)])

    return encode


def figures(found: Vectors, expected: Vectors, real: int) -> tuple[float, ...]:
    """Mean, first percentile and least cosine of the first `real` texts, mean and least of the others."""
    near = cosines(found, expected)
    first, rest = near[:real], near[real:]
    return tuple(map(float, (first.mean(), np.quantile(first, 0.01), first.min(), rest.mean(), rest.min())))


def texts_of(cosine: Sequence[float]) -> list[str]:
    """Cells of a table."""
    return [f"{value:.5f}" for value in cosine]


def real_texts(data: Path, count: int) -> list[str]:
    """A share of each file, the same ones every time."""
    random = np.random.default_rng(7)
    texts: list[str] = []
    for name, share in SHARES.items():
        lines = (data / "texts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        for k in random.choice(len(lines), min(len(lines), int(count * share)), replace=False):
            entry = json.loads(lines[k])
            texts.append(entry if isinstance(entry, str) else entry["text"])
    return texts


def degenerate_texts(data: Path) -> list[str]:
    """Nothing, one token, words and sentences over and over, punctuation, code, other scripts."""
    texts = [*SINGLE, *(f"{word} " * times for word in REPEATED for times in (2, 8, 30, 100, 300))]
    texts += ["The cat sat on the mat. " * times for times in (2, 5, 20, 60)]
    texts += [CODE * times for times in (1, 5, 20)]
    for language in ("ru", "de", "zh", "ar", "hi", "ja", "th", "he", "ko"):
        file = data / "unicode" / "udhr" / f"{language}.txt"
        if file.is_file():
            whole = file.read_text(encoding="utf-8")
            texts += [whole[300:400], whole[500:1200], whole[1000:4000]]
    return texts


def dynamic(model: Path, work: Path) -> Encode:
    """onnxruntime's quantize_dynamic of model.onnx, one text at a time: its vectors depend on their neighbours."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = work / "dynamic.onnx"
    quantize_dynamic(model / "model.onnx", target, per_channel=True, weight_type=QuantType.QInt8)
    # Without VNNI its products would overflow: with this they are what other processors make of them.
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(target), options)
    described = read(model)
    tokenizer = TextTokenizer(model / described.tokenizer.file, max_length=described.max_length)

    names = {entry.name for entry in session.get_inputs()}

    def encode(texts: list[str]) -> Vectors:
        out = []
        for text in texts:
            ids = np.asarray(tokenizer([text]).ids[0], dtype=np.int64)[None]
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            out.append(session.run(None, {name: feeds[name] for name in names})[0][0])
        return np.stack(out)

    return encode


if __name__ == "__main__":
    sys.exit(main())
