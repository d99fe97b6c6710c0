"""CrossEncoder of fastembed_rt.compat and of sentence-transformers on rerankers of causal language models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from causal_rerankers import save_causal, save_causal_reranker
from checkpoints import change_json
from exports import quick
from same_results import outcome, same

from fastembed_rt import Reranker
from fastembed_rt.compat import sentence_transformers as compat

QUERY, TEXTS = "where is the dog?", ["the house is red", "a dog runs", "", "new city light " * 60, "e\u0301 東京"]
PAIRS = [(QUERY, text) for text in TEXTS]
PROMPTS = {"web": "Find web pages", "empty": ""}
CALLS: dict[str, Callable[[Any], Any]] = {
    "pairs": lambda m: m.predict(PAIRS),
    "one pair": lambda m: m.predict(PAIRS[0]),
    "instruction": lambda m: m.predict(PAIRS, prompt="Is it about an animal?"),
    "no instruction": lambda m: m.predict(PAIRS, prompt=""),
    "prompt_name": lambda m: m.predict(PAIRS, prompt_name="web"),
    "empty prompt": lambda m: m.predict(PAIRS, prompt_name="empty"),
    "unknown prompt": lambda m: m.predict(PAIRS, prompt_name="nothing"),
    "logits": lambda m: m.predict(PAIRS, activation_fn=torch.nn.Identity(), convert_to_tensor=True),
    "rank": lambda m: m.rank(QUERY, TEXTS, return_documents=True),
    "rank by an instruction": lambda m: m.rank(QUERY, TEXTS, top_k=2, prompt="Is it about an animal?"),
    "labels": lambda m: m.num_labels,
    "activation": lambda m: type(m.activation_fn),
    "prompts": lambda m: (m.prompts, m.default_prompt_name),
    "max_seq_length": lambda m: m.max_seq_length,
    "preprocess": lambda m: dict(m.preprocess(PAIRS)),
    "preprocess with an instruction": lambda m: dict(m.preprocess(PAIRS, prompt="Is it about an animal?")),
}


@pytest.fixture(scope="module", params=["template", "plain"])
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    from sentence_transformers import CrossEncoder

    root = tmp_path_factory.mktemp("reranker")
    template: dict[str, Any] = {} if request.param == "template" else {"template": None}
    checkpoint = save_causal_reranker(root / "checkpoint", prompts=PROMPTS, default_prompt_name="web", **template)
    quick(checkpoint, root / "model")
    ours = compat.CrossEncoder(str(root / "model"))
    yield ours, CrossEncoder(str(checkpoint), device="cpu")
    ours.close()


@pytest.mark.parametrize("name", CALLS)
def test_each_call_gives_what_it_gives_there(name: str, both: tuple[Any, Any]) -> None:
    ours, theirs = (outcome(CALLS[name], model) for model in both)
    same(ours, theirs)


def test_a_directory_as_published_is_opened_as_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers import CrossEncoder

    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "cache"))
    source = save_causal(tmp_path / "source")
    change_json(source / "tokenizer_config.json", model_max_length=160)
    with Reranker.from_checkpoint(source) as model:
        assert model.manifest.task == "reranking"
    ours, theirs = compat.CrossEncoder(str(source)), CrossEncoder(str(source), device="cpu")
    same(ours.predict(PAIRS, prompt="Is it?"), theirs.predict(PAIRS, prompt="Is it?"))
    ours.close()


def test_what_is_saved_keeps_its_template(tmp_path: Path, both: tuple[Any, Any]) -> None:
    ours, theirs = both
    ours.save_pretrained(str(tmp_path / "saved"))
    saved = compat.CrossEncoder(str(tmp_path / "saved"))
    same(saved.predict(PAIRS), theirs.predict(PAIRS))
    saved.close()
