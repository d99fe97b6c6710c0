"""What is chosen for cards whose times are made up, where it is kept, and that a session takes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkpoints import save_sentence_transformers
from pretended import pretended_gpus

from fastembed_rt import EmbeddingModel
from fastembed_rt.run import calibration, cuda
from fastembed_rt.run.calibration import Plan
from fastembed_rt_export import pipeline
from fastembed_rt_export.pipeline import ExportOptions

__all__ = ["pretended_gpus"]


@dataclass
class Card:
    """Microseconds: `launches` for a plain run and `replay` for a captured one, `token` each beyond what fills it."""

    launches: float
    replay: float
    token: float
    full: int  # tokens below which a batch takes no less time
    alone: float = 1.0  # share of the card that one batch keeps busy
    out_of_memory: int = 1 << 30  # tokens

    def _computing(self, tokens: int) -> float:
        if tokens > self.out_of_memory:
            raise MemoryError(tokens)
        return self.token * max(tokens, self.full)

    def plain(self, texts: int, tokens: int) -> float:
        return max(self.launches, self._computing(texts * tokens))

    def replayed(self, texts: int, tokens: int) -> float:
        return self.replay + self._computing(texts * tokens)

    def side_by_side(self, flights: int, texts: int, tokens: int) -> float:
        return self.plain(texts, tokens) / min(flights * self.alone, 1.0)


@pytest.mark.parametrize(
    ("card", "plan"),
    [
        (Card(launches=600, replay=50, token=0.5, full=64, alone=0.6), Plan(4096, 1024, 2)),  # fast
        (Card(launches=600, replay=50, token=5, full=64, alone=1.0), Plan(4096, 16, 1)),  # slow: products take the time
        (Card(launches=9000, replay=50, token=0.5, full=64, alone=0.35), Plan(16384, 4096, 3)),  # a slow host
        (Card(launches=10, replay=5000, token=0.1, full=12000, alone=0.9), Plan(16384, 0, 2)),  # nothing to capture for
    ],
)
def test_the_least_that_is_as_fast_as_the_most_is_chosen(card: Card, plan: Plan) -> None:
    assert calibration.choose(card, 512) == plan


def test_texts_are_no_longer_than_the_model_takes() -> None:
    seen = []

    class Watching(Card):
        def plain(self, texts: int, tokens: int) -> float:
            seen.append(tokens)
            return super().plain(texts, tokens)

    chosen = calibration.choose(Watching(launches=9000, replay=50, token=0.1, full=64), 100)
    assert max(seen) == 100
    assert chosen.captured_tokens == 16  # the next shape tried has texts of 128


def test_a_plan_is_read_as_it_was_written_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "new" / "x.plan.json"
    assert calibration.read(file) is None
    plan = Plan(8192, 1024, 3)
    calibration.write(file, plan)
    assert calibration.read(file) == plan
    whole = json.loads(file.read_text())
    spoilt: object
    for spoilt in ({**whole, "flights": 0}, {**whole, "batch_tokens": 1 << 40}, {**whole, "more": 1}, [], None):
        file.write_text(json.dumps(spoilt))
        assert calibration.read(file) is None
    file.write_text("{")
    assert calibration.read(file) is None
    calibration.write(file / "below a file", plan)  # measured again at the next load, no error


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("calibration")
    source = save_sentence_transformers(root / "c")
    pipeline.export(
        str(source), ExportOptions(output=root / "m", targets=("cuda",), precisions=("fp32",), verify=False)
    )
    return root / "m"


def session_of(model: EmbeddingModel) -> cuda.CudaSession:
    (found,) = model._running().sessions
    assert isinstance(found, cuda.CudaSession)
    return found


@pytest.mark.usefixtures("pretended_gpus")
def test_a_session_is_measured_once_and_runs_as_planned(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(calibration.SWITCH, "1")
    monkeypatch.setattr(calibration, "BATCHES", (64, 128))
    monkeypatch.setattr(calibration, "CAPTURED", ((1, 16), (4, 16)))
    monkeypatch.setattr(calibration, "LENGTH", 16)
    monkeypatch.setattr(calibration, "MOST", Plan(128, 64, 3))
    times: list[Plan] = []
    choose = calibration.choose

    def choosing(card: calibration.Card, longest: int) -> Plan:
        """Everything is run; what comes of it depends on the clock of this machine."""
        found = choose(card, longest)
        assert found.batch_tokens in (64, 128)
        times.append(found)
        return Plan(64, 16, 1)

    monkeypatch.setattr(calibration, "choose", choosing)
    for _ in range(2):
        with EmbeddingModel(directory, provider="cuda", precision="fp32") as model:
            vectors = model.encode(["the cat", "a dog sleeps", "the cat sleeps"] * 9)
            assert session_of(model)._held.slots.qsize() == 1
            assert model._running().limits.tokens == 64
            assert (4, 16) not in session_of(model).captured_shapes() or len(times) == 1  # while it was measured
    assert len(times) == 1
    with EmbeddingModel(directory, provider="cuda", precision="fp32", max_batch_tokens=4096) as model:
        assert model._running().limits.tokens == 4096  # the caller's word
    monkeypatch.setenv(calibration.SWITCH, "0")
    with EmbeddingModel(directory, provider="cuda", precision="fp32") as model:
        assert model._running().limits.tokens == Plan.batch_tokens
        assert abs(model.encode(["the cat", "a dog sleeps", "the cat sleeps"] * 9) - vectors).max() < 1e-5


@pytest.mark.usefixtures("pretended_gpus")
def test_a_card_too_small_to_be_measured_runs_with_defaults_and_says_so(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(calibration.SWITCH, "1")

    def failing(*_: object) -> Plan:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(calibration, "choose", failing)
    with EmbeddingModel(directory, provider="cuda", precision="fp32") as model:
        assert model._running().limits.tokens == Plan.batch_tokens
        assert session_of(model)._held.slots.qsize() == Plan.flights
        model.encode("the cat")
    batch = Plan.batch_tokens
    assert f"GPU 0 runs with batches of {batch} tokens, unmeasured: CUDA failure 2: out of memory" in caplog.text
