"""One application that serves a small model of every task, and a client for it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asgi_client import Client
from checkpoints import save_sentence_transformers
from cross_encoders import save_cross_encoder
from gathering import Runner, Work
from multi_vectors import save_multi_vector
from raw_http import Connect, Run, until
from sparse_encoders import save_splade
from stand_in_workers import STAND_IN, Watched

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel
from fastembed_rt.models.work import Prepared
from fastembed_rt.server.gather import Gatherer
from fastembed_rt.server.jobs import Job

if TYPE_CHECKING:
    from fastembed_rt.server.app import App
    from fastembed_rt.server.limits import Limits

PROMPTS = {"query": "query : ", "document": "passage : ", "red": "the red "}


@dataclass(frozen=True)
class Directories:
    """Of each task: checkpoint and model directory."""

    checkpoints: dict[str, Path]
    models: dict[str, Path]


@pytest.fixture(scope="session")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Directories:
    from fastembed_rt_export.pipeline import ExportOptions, export

    root = tmp_path_factory.mktemp("served")
    makers: dict[str, Any] = {
        "encoder": lambda path: save_sentence_transformers(path, prompts=PROMPTS, max_seq_length=40),
        "ranker": save_cross_encoder,
        "splade": save_splade,
        "colbert": lambda path: save_multi_vector(path, query_length=20, document_length=40),
    }
    checkpoints, models = {}, {}
    for name, make in makers.items():
        checkpoints[name] = make(root / "checkpoints" / name)
        models[name] = root / name
        export(str(checkpoints[name]), ExportOptions(output=models[name], verify=False, tokens=name == "encoder"))
    return Directories(checkpoints, models)


@dataclass(frozen=True)
class Loaded:
    encoder: EmbeddingModel
    ranker: Reranker
    splade: SparseModel
    colbert: LateInteractionModel

    def by_name(self) -> dict[str, Any]:
        return dict(vars(self))


@pytest.fixture(scope="session")
def loaded(directories: Directories) -> Iterator[Loaded]:
    kinds: dict[str, Any] = {
        "encoder": EmbeddingModel,
        "ranker": Reranker,
        "splade": SparseModel,
        "colbert": LateInteractionModel,
    }
    models = {name: kind(directories.models[name], threads=2) for name, kind in kinds.items()}
    yield Loaded(**models)
    for model in models.values():
        model.close()


@pytest.fixture(scope="session")
def client(loaded: Loaded) -> Iterator[Client]:
    from fastembed_rt.server.app import App

    with App(loaded.by_name()) as app:
        client = Client(app)
        yield client
        client.close()


@pytest.fixture
def serve(loaded: Loaded) -> Iterator[Callable[..., Client]]:
    """Makes a client of an application of its own."""
    from fastembed_rt.server.app import App

    made: list[Client] = []

    def make(**options: Any) -> Client:
        app = App({"encoder": loaded.encoder, "ranker": loaded.ranker}, **options)
        app.__enter__()
        made.append(Client(app))
        return made[-1]

    yield make
    for client in made:
        client.app.close()
        client.close()


@pytest.fixture
def gathering() -> Iterator[Callable[..., tuple[Runner, Gatherer, Callable[..., Job]]]]:
    made: list[tuple[Runner, Gatherer]] = []

    def make(*arguments: Any, **options: Any) -> tuple[Runner, Gatherer, Callable[..., Job]]:
        runner = Runner(*arguments, **options)
        gatherer = Gatherer(runner)  # type: ignore[arg-type]
        made.append((runner, gatherer))

        def submit(texts: list[str], seconds: float = 60.0) -> Job:
            prepared = Prepared(Work(), None, "", runner, lambda tokenized: None)  # type: ignore[arg-type]
            job = Job(prepared, texts, time.monotonic() + seconds)
            gatherer.submit(job, sum(int(text.split()[1]) for text in texts))
            return job

        return runner, gatherer, submit

    yield make
    for runner, gatherer in made:
        runner.open()
        gatherer.close()


@pytest.fixture(scope="session")
def two_in_int8(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Directories of two models, which have no layer in common."""
    from fastembed_rt_export.pipeline import ExportOptions, export

    root = tmp_path_factory.mktemp("int8")
    made = []
    for seed in range(2):
        checkpoint = save_sentence_transformers(root / f"checkpoint-{seed}", max_seq_length=40, seed=seed)
        made.append(root / f"model-{seed}")
        export(str(checkpoint), ExportOptions(output=made[-1], verify=False, precisions=("int8",)))
    return made


@pytest.fixture
def run(loaded: Any) -> Iterator[Run]:
    """Serves in a thread of this process; gives what connects to it."""
    from fastembed_rt.server.app import App
    from fastembed_rt.server.connections import Patience
    from fastembed_rt.server.listening import Listening
    from fastembed_rt.server.serving import Server

    ends: list[Callable[[], None]] = []

    def start(
        *, limits: Limits | None = None, patience: dict[str, Any] | None = None, app: App | None = None, **options: Any
    ) -> Connect:
        app = app or App({"encoder": loaded.encoder}, limits=limits)
        listening = Listening(**{"port": 0, "drain_seconds": 2, **options})
        listeners = listening.bind()
        server = Server(app, listening, listeners, patience=Patience(**patience) if patience else None)
        address = listeners[0].getsockname()
        family = listeners[0].family
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()

        def end() -> None:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()

        ends.append(end)

        def connect() -> socket.socket:
            made = socket.socket(family)
            made.settimeout(20)
            made.connect(address)
            return made

        connect.server = server  # type: ignore[attr-defined]
        until(lambda: server.started)
        return connect

    yield start
    for end in ends:
        end()


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    from fastembed_rt.server import workers

    monkeypatch.setattr(workers, "BOOT", STAND_IN)
    return Watched(tmp_path / "files")
