"""One model for several threads, after forks, after errors and after its end."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from checkpoints import TEXTS, WORDS
from model_texts import DIM, LONG, MAX_LENGTH, Vectors, assert_same
from tolerances import REORDERED

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, TextTooLongError


def test_threads_share_a_model(pair: Any) -> None:
    lists = [[f"{word} {k}" for k, word in enumerate(WORDS[n:])] + [LONG] * (n % 3) for n in range(24)]
    with EmbeddingModel(pair.directory, threads=2) as model:
        alone = [model.encode(texts) for texts in lists]
        counted = model.stats
        start = threading.Barrier(8)

        def work(texts: list[str]) -> tuple[Vectors, list[Vectors]]:
            start.wait(30)  # 24 lists are three rounds of eight at once
            return model.encode(texts), list(model.embed(texts[:5]))

        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(work, lists))
        for wanted, (encoded, embedded) in zip(alone, together, strict=True):
            assert_same(encoded, wanted, REORDERED)
            assert_same(embedded, wanted[:5], REORDERED)
        assert model.stats.texts == 2 * counted.texts + 5 * len(lists)


def test_small_calls_that_run_together_do_not_change_a_vector(pair: Any) -> None:
    texts = [f"{word} {word}" for word in WORDS]
    with EmbeddingModel(pair.directory, max_wait=0.01) as model:
        alone = [model.encode(text) for text in texts]
        with ThreadPoolExecutor(8) as pool:
            assert_same(list(pool.map(model.encode, texts)), alone, REORDERED)

        async def together() -> list[Vectors]:
            found: list[Vectors] = await asyncio.gather(*map(model.aencode, texts))
            return found

        assert_same(asyncio.run(together()), alone, REORDERED)


def test_a_text_that_is_refused_disturbs_no_other_thread(pair: Any) -> None:
    with EmbeddingModel(pair.directory, truncation="error", max_wait=0.005) as model:
        wanted = model.encode("a cat")

        def work(k: int) -> Vectors | None:
            try:
                found: Vectors = model.encode(LONG if k % 3 == 0 else "a cat")
                return found
            except TextTooLongError:
                return None

        with ThreadPoolExecutor(8) as pool:
            for k, vector in enumerate(pool.map(work, range(60))):
                assert (vector is None) == (k % 3 == 0)
                if vector is not None:
                    assert_same(vector, wanted, REORDERED)


OPENED = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from fastembed_rt import EmbeddingModel
wanted = EmbeddingModel(sys.argv[1], threads=1).encode("the cat")
def use(_):
    with EmbeddingModel(sys.argv[1], threads=1) as model:
        return np.array_equal(model.encode("the cat"), wanted)
with ThreadPoolExecutor(4) as pool:
    print(all(pool.map(use, range(120))))
"""


def test_models_are_opened_while_others_are_closed(run_script: Any, model_dir: Path) -> None:
    done = run_script(OPENED, model_dir, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


DAEMONS = """
import atexit, sys, threading, time
atexit.register(lambda: print(*(model.encode("the cat") == wanted).shape))  # after the library's own handler
from fastembed_rt import EmbeddingModel
texts = ["the cat"] * 600
model = EmbeddingModel(sys.argv[1], threads=2)
wanted = model.encode("the cat")
def load():
    with EmbeddingModel(sys.argv[1], threads=2) as other:
        other.encode(texts)
work = {"few": lambda: model.encode(texts[:3]), "many": lambda: model.encode(texts), "load": load}[sys.argv[2]]
def over_and_over():
    while True:
        work()
for _ in range(4):
    threading.Thread(target=over_and_over, daemon=True).start()
time.sleep(0.4)
"""


@pytest.mark.parametrize("work", ["few", "many", "load"])
def test_an_interpreter_ends_in_peace_while_threads_of_the_user_encode(
    run_script: Any, model_dir: Path, work: str
) -> None:
    done = run_script(DAEMONS, model_dir, work, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{DIM}\n", "")


SMALL_STACK = """
import sys, threading
import onnxruntime
def use():
    from fastembed_rt import EmbeddingModel
    model = EmbeddingModel(sys.argv[1], threads=2)
    print(model.encode("the cat").shape, model.encode(["the cat " * n for n in range(300)]).shape)
threading.stack_size(128 << 10)
thread = threading.Thread(target=use)
thread.start()
thread.join()
"""


def test_the_first_model_is_loaded_on_a_thread_with_a_small_stack(run_script: Any, model_dir: Path) -> None:
    done = run_script(SMALL_STACK, model_dir, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"({DIM},) (300, {DIM})\n"), done.stderr


@pytest.mark.parametrize("leads", [False, True], ids=["waits", "leads"])
def test_an_interrupted_call_does_not_block_the_next(run_script: Any, model_dir: Path, leads: bool) -> None:
    script = """
import signal, sys, threading, time
from fastembed_rt import EmbeddingModel
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
model = EmbeddingModel(sys.argv[1], max_wait=1.0)
if sys.argv[2] == "False":
    other = threading.Thread(target=model.encode, args=["dog"])
    other.start()
    time.sleep(0.3)
signal.setitimer(signal.ITIMER_REAL, 0.4)
try:
    # Too many tokens for the other's batch: this call stays in the queue.
    model.encode(["the cat"] * (1 if sys.argv[2] == "True" else model.max_batch_tokens // 4))
except KeyboardInterrupt:
    print("interrupted")
print(model.encode("a").shape)
"""
    done = run_script(script, model_dir, leads, timeout=20)
    assert done.stdout == f"interrupted\n({DIM},)\n", done.stderr


FORK = """
import os, sys, numpy as np
from fastembed_rt import EmbeddingModel
texts = [f"the cat {k}" for k in range(300)]
model = EmbeddingModel(sys.argv[1], threads=2)
wanted = model.encode(texts)
"""
CHILD = """
child = os.fork()
if child == 0:
    same = np.array_equal(model.encode(texts), wanted) and model.count_tokens(texts).min() > 3
    print("same" if same else "different", flush=True)
    {end}
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), np.array_equal(model.encode(texts), wanted))
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
@pytest.mark.parametrize("end", ["os._exit(3)", "sys.exit(3)", "del model; sys.exit(3)", "model.close(); sys.exit(3)"])
def test_a_model_works_in_a_forked_child_which_ends_in_peace(run_script: Any, model_dir: Path, end: str) -> None:
    done = run_script(FORK + CHILD.format(end=end), model_dir, timeout=30)
    assert (done.stdout, done.stderr) == ("same\n3 True\n", "")


@needs_fork
@pytest.mark.parametrize("parallelism", ["true", "false"])
def test_a_forked_child_does_not_wait_for_the_tokenizers_threads(
    run_script: Any, model_dir: Path, parallelism: str
) -> None:
    script = FORK + CHILD.format(end="os._exit(3)")
    done = run_script(script, model_dir, timeout=30, TOKENIZERS_PARALLELISM=parallelism)
    assert (done.stdout, done.stderr) == ("same\n3 True\n", "")


@needs_fork
def test_a_pool_of_forked_workers_shares_the_loaded_model(run_script: Any, model_dir: Path) -> None:
    script = """
import multiprocessing
def work(k):
    return model.encode(texts[k : k + 100])
with multiprocessing.get_context("fork").Pool(3) as pool:
    parts = pool.map(work, [0, 100, 200], chunksize=1)
print(np.abs(np.concatenate(parts) - wanted).max() < 1e-6)
"""
    done = run_script(FORK + script, model_dir, timeout=30)
    assert (done.stdout, done.stderr) == ("True\n", "")


@needs_fork
def test_a_fork_in_the_middle_of_other_threads_work_does_no_harm(run_script: Any, model_dir: Path) -> None:
    script = """
import threading
going = threading.Event()
def work():
    while not going.is_set():
        model.encode(texts[:50])
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(model.encode(texts), wanted) else 1)
    print(os.waitpid(child, 0)[1])
going.set()
for thread in threads:
    thread.join()
"""
    done = run_script(FORK + script, model_dir, timeout=30)
    assert done.stdout == "0\n" * 5, done.stderr


@needs_fork
def test_a_closed_model_stays_closed_in_a_child(run_script: Any, model_dir: Path) -> None:
    script = """
model.close()
child = os.fork()
if child == 0:
    try:
        model.encode("a")
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    done = run_script(FORK + script, model_dir, timeout=30)
    assert done.stdout == "InvalidInputError the model is closed; load it again\n"


def test_a_closed_model_says_so(pair: Any) -> None:
    with EmbeddingModel(pair.directory) as model:
        stream, begun = model.embed(itertools.repeat("a")), model.embed(itertools.repeat("a"))
        assert next(begun).shape == model.encode("a").shape
    for inputs, use in (("a", model.encode), ([], model.encode), (["a"], model.embed)):
        with pytest.raises(InvalidInputError, match="the model is closed; load it again"):
            use(inputs)
    with pytest.raises(InvalidInputError, match="the model is closed"):
        next(stream)
    with pytest.raises(InvalidInputError, match="the model is closed"):
        for _ in itertools.islice(begun, 10_000):
            pass
    model.close()  # twice does no harm


def test_an_error_inside_with_closes_the_model(pair: Any) -> None:
    with pytest.raises(ZeroDivisionError), EmbeddingModel(pair.directory) as model:
        raise ZeroDivisionError
    with pytest.raises(InvalidInputError, match="closed"):
        model.encode("a")


def test_a_model_describes_itself(model: EmbeddingModel) -> None:
    assert f"dim={DIM}, max_length={MAX_LENGTH}" in repr(model)
    assert "provider='cpu', threads=2" in repr(model)


def test_similarity_is_the_models_own(export_pair: Callable[..., Any]) -> None:
    made = export_pair(normalize=False)
    vectors = made.reference.encode(TEXTS)
    with EmbeddingModel(made.directory) as model:
        assert_same(model.similarity(vectors, vectors[:2]), made.reference.similarity(vectors, vectors[:2]).numpy())
        assert model.similarity(vectors[0], vectors[1]).shape == (1, 1)
