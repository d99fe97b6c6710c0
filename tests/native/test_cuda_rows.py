"""The operators for CUDA that newer encoders and heads are made of, on stand-ins, beside torch and numpy."""

from __future__ import annotations

import shutil
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from cuda_stand_in.sessions import TYPES, StandIn, fed, model, run

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++ on Linux"
)
Array = npt.NDArray[Any]
BOUND = {"Float16": 1e-3, "BFloat16": 8e-3}
ACTIVATIONS: dict[str, Any] = {
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "silu": torch.nn.functional.silu,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.built(tmp_path_factory.mktemp("cuda"))


def numbers(random: np.random.Generator, kind: str, *shape: int, scale: float = 1.0) -> Array:
    return (random.standard_normal(shape) * scale).astype(TYPES[kind])


def wide(array: Array) -> torch.Tensor:
    return torch.tensor(array.astype(np.float32))


def near(found: Array, wanted: torch.Tensor, bound: float) -> None:
    assert found.shape == tuple(wanted.shape)
    np.testing.assert_allclose(found.astype(np.float32), wanted.numpy(), rtol=bound, atol=bound)


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("rms", [0, 1])
def test_a_sum_goes_on_beside_its_normalization(stand_in: StandIn, kind: str, rms: int) -> None:
    random = np.random.default_rng(0)
    x, skip, gamma, beta = (numbers(random, kind, *shape) for shape in ((9, 72), (9, 72), (72,), (72,)))
    functional = torch.nn.functional

    def norm(given: torch.Tensor) -> torch.Tensor:
        if rms:
            return functional.rms_norm(given, [72], wide(gamma), 1e-5)
        return functional.layer_norm(given, [72], wide(gamma), wide(beta), 1e-5)

    parameters = [gamma] if rms else [gamma, beta]
    options = {"width": 72, "epsilon": 1e-5, "rms": rms, "beta": 1 - rms}
    feeds = {"x": x, "skip": skip}
    session = stand_in.session(model(f"SumNorm{kind}", feeds, parameters, **options))
    near(fed(session, feeds, "sum"), wide(x) + wide(skip), BOUND[kind])
    near(fed(session, feeds), norm(wide(x) + wide(skip)), 2 * BOUND[kind])
    near(run(stand_in, f"Norm{kind}", {"x": x}, parameters, **options), norm(wide(x)), 2 * BOUND[kind])


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("activation", ["", *ACTIVATIONS])
def test_a_gate_opens_by_its_activation(stand_in: StandIn, kind: str, activation: str) -> None:
    random = np.random.default_rng(0)
    gate, up = numbers(random, kind, 37, 24, scale=2), numbers(random, kind, 37, 24)
    options = {"activation": activation} if activation else {}
    found = run(stand_in, f"Gated{kind}", {"gate": gate, "up": up}, [], width=24, **options)
    opened = ACTIVATIONS[activation](wide(gate)) if activation else wide(gate)
    near(found, opened * wide(up), 2 * BOUND[kind])


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize(("size", "norm", "at"), [(8, 0, 0), (64, 1, 16), (128, 0, 8), (256, 1, 0)])
def test_heads_are_normalized_and_turned_by_their_place(
    stand_in: StandIn, kind: str, size: int, norm: int, at: int
) -> None:
    """As transformers' rotate_half, on part of what a product gave."""
    random = np.random.default_rng(0)
    heads, rows = 3, 7
    x, gamma = numbers(random, kind, rows, at + heads * size + 8), numbers(random, kind, size)
    places, angles = random.integers(0, 20, rows), random.standard_normal((20, size // 2)).astype(np.float32)
    tables = [np.cos(angles), np.sin(angles), *([gamma] if norm else [])]
    options = {"heads": heads, "size": size, "at": at, **({"norm": 1, "epsilon": 1e-6} if norm else {})}
    found = run(stand_in, f"Turn{kind}", {"x": x, "places": places}, tables, **options)
    states = wide(x)[:, at : at + heads * size].reshape(rows, heads, size)
    if norm:
        states = torch.nn.functional.rms_norm(states, [size], wide(gamma), 1e-6)
    cosine, sine = (torch.tensor(table[places]).repeat(1, 2)[:, None] for table in tables[:2])
    turned = torch.cat([-states[..., size // 2 :], states[..., : size // 2]], -1)
    near(found, (states * cosine + turned * sine).reshape(rows, -1), 3 * BOUND[kind])


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("added", [0, 1])
def test_words_weigh_what_their_logits_say(stand_in: StandIn, kind: str, times: int, added: int) -> None:
    random = np.random.default_rng(0)
    starts = np.cumsum([0, 1, 40, 0, 7, 100]).astype(np.int32)
    x = numbers(random, kind, 150, 72, scale=3)  # two more rows, which belong to no text
    x[:, 5] = -1
    found = run(stand_in, f"WordWeights{kind}", {"x": x, "starts": starts}, [], width=72, times=times, added=added)
    weights = torch.relu(wide(x))
    for _ in range(times):
        weights = torch.log1p(weights)
    parts = [weights[a:b] for a, b in pairwise(starts)]
    wanted = [(p.sum(0) if added else p.max(0).values) if len(p) else torch.zeros(72) for p in parts]
    near(found, torch.stack(wanted), 2e-6)
    assert not found[:, 5].any()
    alone = run(
        *(stand_in, f"WordWeights{kind}", {"x": x[1:41], "starts": np.array([0, 40], np.int32)}, []),
        **dict[str, Any](width=72, times=times, added=added),
    )
    assert alone[0].tobytes() == found[1].tobytes()


@pytest.mark.parametrize("kind", list(TYPES))
def test_tokens_become_unit_vectors(stand_in: StandIn, kind: str) -> None:
    x = numbers(np.random.default_rng(0), kind, 9, 136)
    x[4] = 0
    near(run(stand_in, f"Unit{kind}", {"x": x}, [], width=136), torch.nn.functional.normalize(wide(x)), 1e-6)


@pytest.mark.parametrize("activation", ["", *ACTIVATIONS])
@pytest.mark.parametrize(("inputs", "outputs", "bias"), [(24, 1, 1), (70, 33, 0), (7, 64, 1)])
def test_a_layer_behind_the_pooling_is_that_of_torch(
    stand_in: StandIn, activation: str, inputs: int, outputs: int, bias: int
) -> None:
    random = np.random.default_rng(0)
    x, w, b = (random.standard_normal(shape).astype(np.float32) for shape in ((9, inputs), (inputs, outputs), outputs))
    options = {"in_features": inputs, "out_features": outputs, "bias": bias}
    options |= {"activation": activation} if activation else {}  # type: ignore[dict-item]
    constants = [w, b][: 1 + bias]
    found = run(stand_in, "Dense", {"x": x}, constants, **options)
    wanted = torch.tensor(x) @ torch.tensor(w) + (torch.tensor(b) if bias else 0)
    near(found, ACTIVATIONS[activation](wanted) if activation else wanted, 1e-5)
    for row in (0, 6, 8):
        alone = run(stand_in, "Dense", {"x": x[row : row + 1].copy()}, constants, **options)
        assert alone.tobytes() == found[row : row + 1].tobytes()


REFUSED: dict[str, tuple[str, dict[str, Array], list[Array], dict[str, Any], str]] = {
    "gate": (
        "GatedFloat16",
        {"gate": np.zeros((4, 16), np.float16), "up": np.zeros((3, 16), np.float16)},
        [],
        {"width": 16},
        r"up is float16 \(3, 16\)",
    ),
    "narrow": (
        "TurnFloat16",
        {"x": np.zeros((4, 16), np.float16), "places": np.zeros(4, np.int64)},
        [np.zeros((5, 8), np.float32)] * 2,
        {"heads": 2, "size": 16},
        "x has 16 columns and has to have a multiple of 8, at least 32",
    ),
    "half angles": (
        "TurnFloat16",
        {"x": np.zeros((4, 16), np.float16), "places": np.zeros(4, np.int64)},
        [np.zeros((5, 8), np.float16)] * 2,
        {"heads": 1, "size": 16},
        "cosine is float16",
    ),
    "logarithms": (
        "WordWeightsFloat16",
        {"x": np.zeros((4, 16), np.float16), "starts": np.zeros(2, np.int32)},
        [],
        {"width": 16, "times": 3},
        "times is 3 and has to be from 1 to 2",
    ),
    "half layer": (
        "Dense",
        {"x": np.zeros((4, 16), np.float16)},
        [np.zeros((16, 2), np.float32)],
        {"in_features": 16, "out_features": 2},
        "x is float16",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_what_does_not_fit_is_refused_in_a_sentence(stand_in: StandIn, case: str) -> None:
    op, feeds, constants, attributes, said = REFUSED[case]
    with pytest.raises(Exception, match=rf"fastembed_rt: {op}: .*{said}"):
        run(stand_in, op, feeds, constants, **attributes)
