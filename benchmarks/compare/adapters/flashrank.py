"""FlashRank, given the fp32 graph under the name of one of its own models: it has no option for others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.compare.adapters import onnxruntime_threads, requests_of_pairs
from benchmarks.compare.adapters.plain_tokenizer import counter, onnx_folder
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

NAME, GRAPH = "ms-marco-MiniLM-L-12-v2", "flashrank-MiniLM-L-12-v2_Q.onnx"


def prepare(options: Options, folder: Path) -> None:
    """The folder that it would download and unpack."""
    (folder / NAME).mkdir()
    onnx_folder(options, folder / NAME)
    (folder / NAME / "model.onnx").rename(folder / NAME / GRAPH)


def load(options: Options) -> Loaded:
    """Load the prepared folder."""
    from flashrank import Ranker, RerankRequest

    onnxruntime_threads.bound(options.threads)
    model = Ranker(NAME, options.prepared, max_length=options.max_length, log_level="ERROR")

    def ask(request: Any) -> list[float]:
        question, passages = request
        numbered = [{"id": k, "text": passage} for k, passage in enumerate(passages)]
        answers = model.rerank(RerankRequest(query=question, passages=numbered))
        return [answer["score"] for answer in sorted(answers, key=lambda answer: answer["id"])]

    folder = Path(options.prepared, NAME)
    return Loaded(
        encode=lambda requests: [ask(request) for request in requests],
        count_tokens=requests_of_pairs.token_counter(counter(model.tokenizer)),
        files=[folder / GRAPH, *folder.glob("*.json"), *folder.glob("*.data")],
        facts={"providers": model.session.get_providers(), "intra_op_num_threads": options.threads},
        **requests_of_pairs.FORM,
    )


if __name__ == "__main__":
    packages = ("flashrank", "onnxruntime", "tokenizers", "numpy")
    main(Adapter(packages=packages, modules=("flashrank",), load=load, prepare=prepare))
