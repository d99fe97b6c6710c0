"""CrossEncoder of fastembed_rt.compat and of sentence-transformers, each call in both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cross_encoders import PROMPTS, save_cross_encoder
from exports import quick
from same_results import outcome, same

from fastembed_rt import errors
from fastembed_rt.compat import sentence_transformers as compat

Call = Callable[[Any], Any]
QUERY, TEXTS = "where is the dog?", ["the house is red", "a dog runs", "", "new city light " * 20, "a dog runs"]
PAIRS = [(QUERY, text) for text in TEXTS]

CALLS: dict[str, Call] = {
    "pairs": lambda m: m.predict(PAIRS),
    "pairs as lists": lambda m: m.predict([list(pair) for pair in PAIRS]),
    "one pair": lambda m: m.predict(PAIRS[0]),
    "one pair as a list": lambda m: m.predict(list(PAIRS[0])),
    "one pair in a list": lambda m: m.predict(PAIRS[:1]),
    "array of pairs": lambda m: m.predict(np.array(PAIRS)),
    "array of one pair": lambda m: m.predict(np.array(PAIRS[0])),
    "empty array": lambda m: m.predict(np.array([], dtype=str)),
    "sentences=": lambda m: m.predict(sentences=PAIRS),
    "inputs=": lambda m: m.predict(inputs=PAIRS),
    "nothing": lambda m: m.predict([]),
    "nothing, tensor": lambda m: m.predict([], convert_to_tensor=True),
    "nothing, list": lambda m: m.predict([], convert_to_numpy=False),
    "batch_size, workers, bar": lambda m: m.predict(PAIRS, batch_size=2, num_workers=3, show_progress_bar=False),
    "positional prompt": lambda m: m.predict(PAIRS, None, "the red "),
    "prompt_name": lambda m: m.predict(PAIRS, prompt_name="query"),
    "unknown prompt": lambda m: m.predict(PAIRS, prompt_name="nothing"),
    "tensor": lambda m: m.predict(PAIRS, convert_to_tensor=True),
    "tensor of one": lambda m: m.predict(PAIRS[0], convert_to_tensor=True),
    "list of tensors": lambda m: m.predict(PAIRS, convert_to_numpy=False),
    "one, not numpy": lambda m: m.predict(PAIRS[0], convert_to_numpy=False),
    "identity": lambda m: m.predict(PAIRS, activation_fn=torch.nn.Identity()),
    "sigmoid": lambda m: m.predict(PAIRS, activation_fn=torch.nn.Sigmoid()),
    "tanh": lambda m: m.predict(PAIRS, activation_fn=torch.nn.Tanh()),
    "older name": lambda m: m.predict(PAIRS, activation_fct=torch.nn.Tanh(), convert_to_tensor=True),
    "softmax": lambda m: m.predict(PAIRS, apply_softmax=True),
    "softmax, tensor": lambda m: m.predict(PAIRS, apply_softmax=True, convert_to_tensor=True),
    "rank": lambda m: m.rank(QUERY, TEXTS),
    "rank, best two": lambda m: m.rank(QUERY, TEXTS, top_k=2),
    "rank with texts": lambda m: m.rank(QUERY, TEXTS, top_k=3, return_documents=True),
    "rank positional": lambda m: m.rank(QUERY, TEXTS, 2, True, None, "the red "),
    "rank of nothing": lambda m: m.rank(QUERY, []),
    "rank, older keywords": lambda m: m.rank(QUERY, TEXTS, convert_to_tensor=True, apply_softmax=True),
    "rank by tanh": lambda m: m.rank(QUERY, TEXTS, activation_fn=torch.nn.Tanh()),
    "labels": lambda m: (m.num_labels, m.config.num_labels),
    "max_seq_length": lambda m: (m.max_seq_length, m.max_length),
    "prompts": lambda m: (m.prompts, m.default_prompt_name),
    "device": lambda m: m.device,
    "singular": lambda m: [m.is_singular_input(x) for x in (PAIRS[0], PAIRS, [], np.array(PAIRS), np.array(PAIRS[0]))],
    "preprocess": lambda m: dict(m.preprocess(PAIRS)),
    "a number": lambda m: m.predict([(1, 2)]),
}


@pytest.fixture(scope="module", params=[1, 3], ids=["one label", "three labels"])
def both(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    from sentence_transformers import CrossEncoder

    root = tmp_path_factory.mktemp("reranker")
    checkpoint = save_cross_encoder(root / "checkpoint", labels=request.param, prompts=PROMPTS)
    quick(checkpoint, root / "model")
    ours = compat.CrossEncoder(str(root / "model"))
    yield ours, CrossEncoder(str(checkpoint), device="cpu")
    ours.close()


@pytest.mark.parametrize("name", CALLS)
def test_each_call_gives_what_it_gives_there(name: str, both: tuple[Any, Any]) -> None:
    ours, theirs = (outcome(CALLS[name], model) for model in both)
    same(ours, theirs)


def test_arguments_under_the_names_of_all_versions(both: tuple[Any, Any]) -> None:
    from sentence_transformers import CrossEncoder

    ours, theirs = both
    place, checkpoint = str(ours._model.path), theirs.model.name_or_path
    labels = ours.num_labels
    for arguments, options in (
        ((labels, 20), {}),
        ((), {"max_length": 20, "activation_fn": torch.nn.Tanh()}),
        ((), {"max_length": 20, "default_activation_function": torch.nn.Tanh(), "automodel_args": {}}),
        ((), {"tokenizer_args": {"model_max_length": 20}, "device": "cpu"}),
    ):
        left = compat.CrossEncoder(place, *arguments, **options)
        right = CrossEncoder(checkpoint, *arguments, **{"device": "cpu", **options})
        same(left.predict(PAIRS), right.predict(PAIRS))
        assert left.max_seq_length == 20
        left.close()
    with pytest.raises(errors.InvalidInputError, match="num_labels=7"):
        compat.CrossEncoder(place, num_labels=7)
    with pytest.raises(TypeError, match="max_length twice"):
        compat.CrossEncoder(place, labels, 20, max_length=20)
    with pytest.raises(TypeError, match="at most 5"):
        compat.CrossEncoder(place, 1, 2, None, "cpu", 5)


def test_a_keyword_that_nothing_takes_is_refused(both: tuple[Any, Any]) -> None:
    """There it is passed on to modules and forgotten."""
    with pytest.raises(errors.InvalidInputError, match="does not take speed"):
        both[0].predict(PAIRS, speed=3)


def test_our_activations_need_no_torch_module(both: tuple[Any, Any]) -> None:
    from fastembed_rt.compat.sentence_transformers.cross_encoder import Identity, Sigmoid

    ours, theirs = both
    for mine, other in ((Identity(), torch.nn.Identity()), (Sigmoid(), torch.nn.Sigmoid())):
        same(ours.predict(PAIRS, activation_fn=mine), theirs.predict(PAIRS, activation_fn=other))
        logits = torch.tensor([-800.0, 0.0, 3.0])
        same(mine(logits), other(logits))
    assert type(ours.default_activation_function) is type(theirs.activation_fn)
    before, ours.activation_fn = ours.activation_fn, torch.nn.Tanh()
    same(ours.predict(PAIRS), theirs.predict(PAIRS, activation_fn=torch.nn.Tanh()))
    ours.activation_fn = before
    same(ours.predict(PAIRS), theirs.predict(PAIRS))


def test_copies_and_what_is_saved_give_the_same(both: tuple[Any, Any], tmp_path: Path) -> None:
    ours, _ = both
    ours.save_pretrained(str(tmp_path / "saved"))
    for other in (copy.deepcopy(ours), compat.CrossEncoder(str(tmp_path / "saved"))):
        # torch's sigmoid, where a test has set it, and numpy's differ in the last bit.
        logits = [model.predict(PAIRS, activation_fn=torch.nn.Identity()) for model in (other, ours)]
        np.testing.assert_array_equal(*logits)
        same(other.predict(PAIRS), ours.predict(PAIRS))
        other.close()


def test_the_activation_is_saved_or_refused(both: tuple[Any, Any], tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    from fastembed_rt.compat.sentence_transformers.cross_encoder import Identity

    place, checkpoint = str(both[0]._model.path), both[1].model.name_or_path
    for number, function in enumerate((torch.nn.Identity(), torch.nn.Sigmoid(), Identity())):
        again = []
        for kind, path in ((compat.CrossEncoder, place), (CrossEncoder, checkpoint)):
            model = kind(path)
            model.activation_fn = torch.nn.Identity() if kind is CrossEncoder and number == 2 else function
            target = str(tmp_path / f"{kind.__module__}-{number}")
            model.save_pretrained(target)
            again.append(kind(target))
        same(again[0].predict(PAIRS), again[1].predict(PAIRS))
        again[0].close()
    model = compat.CrossEncoder(place, activation_fn=torch.nn.Tanh())
    with pytest.raises(errors.InvalidInputError, match=r"Tanh\(\) cannot be saved"):
        model.save_pretrained(str(tmp_path / "tanh"))
    assert not (tmp_path / "tanh").exists()
