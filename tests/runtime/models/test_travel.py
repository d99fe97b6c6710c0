"""Models that are pickled and copied: within a process, and to others by multiprocessing, joblib and futures."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, save_sentence_transformers
from cross_encoders import save_classifier
from exports import contents, quick
from fake_hub import FakeHub
from jina_checkpoints import save_embedder
from multi_vectors import save_multi_vector
from routed import dense, router, save, static, transformer
from sparse_encoders import save_splade

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel
from fastembed_rt.errors import IntegrityError, InvalidInputError, ModelNotFoundError
from fastembed_rt.models import shared, starting

HERE = Path(__file__).parents[2]
TOKEN = "hf_secret_of_mine"
PAIRS = [("where is the dog?", text) for text in TEXTS]


def travelled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A number for each session that is opened, in a process that nothing has arrived in."""
    counted: list[int] = []
    real = vars(starting)["open_session"]

    def opening(*arguments: Any, **options: Any) -> Any:
        counted.append(options["threads"])
        return real(*arguments, **options)

    monkeypatch.setattr(starting, "open_session", opening)
    monkeypatch.setattr(shared, "_registry", shared._Registry())
    yield counted


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("travel")
    made = {
        "reranker": save_classifier(root / "a"),
        "splade": save_splade(root / "b"),
        "late": save_multi_vector(root / "c"),
    }
    for name, checkpoint in made.items():
        quick(checkpoint, root / name)
    return {name: root / name for name in made}


# --- what arrives ----------------------------------------------------------------------------------------------------


def test_what_arrives_gives_the_same_and_is_opened_when_it_is_used(model_dir: Path, loads: list[int]) -> None:
    with EmbeddingModel(model_dir, threads=1) as model:
        wanted = model.encode(TEXTS)
        sent = pickle.dumps(model)
    del model
    found = pickle.loads(sent)
    assert len(sent) < 2000
    assert isinstance(found, EmbeddingModel)
    assert len(loads) == 1
    assert repr(found) == f"EmbeddingModel({str(model_dir)!r}, not opened yet)"
    np.testing.assert_array_equal(found.encode(TEXTS), wanted)
    assert type(found) is EmbeddingModel
    assert len(loads) == 2
    assert found.stats.texts == len(TEXTS)


def test_equal_models_share_one_engine_and_each_has_its_settings(model_dir: Path, loads: list[int]) -> None:
    model = EmbeddingModel(model_dir, threads=1)
    sent = pickle.dumps(model)
    model.close()
    short = pickle.loads(sent)
    short.max_length = 8
    copies = [pickle.loads(sent) for _ in range(20)] + [travelled(short), copy.deepcopy(short), copy.copy(short)]
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(lambda one: one.encode(TEXTS), copies))
    assert len(loads) == 2
    assert len({id(one._running()) for one in copies}) == 1
    assert len({id(one._tokenizer) for one in copies[:20]}) == 1
    for found in vectors[1:20]:
        np.testing.assert_array_equal(found, vectors[0])
    assert [one.max_length for one in copies[-4:]] == [16, 8, 8, 8]
    assert np.abs(vectors[-1] - vectors[0]).max() > 1e-3


def test_copies_that_arrive_cost_next_to_no_memory(model_dir: Path, run_script: Any) -> None:
    done = run_script(
        """
import pickle, psutil, sys
from fastembed_rt import EmbeddingModel
texts = ["a dog runs"] * 50
def grown(make):
    before = psutil.Process().memory_full_info().uss
    models = [make() for _ in range(30)]
    for model in models:
        model.encode(texts)
    return psutil.Process().memory_full_info().uss - before
model = EmbeddingModel(sys.argv[1], threads=1)
for _ in range(30):
    model.encode(texts)
copies = grown(lambda: pickle.loads(pickle.dumps(model)))
print(copies, grown(lambda: EmbeddingModel(sys.argv[1], threads=1)))
""",
        model_dir,
    )
    copies, loaded = map(int, done.stdout.split())
    assert copies < loaded / 4, done.stdout


def test_a_copy_stays_when_the_original_is_closed_and_the_last_one_frees_the_engine(
    model_dir: Path, loads: list[int]
) -> None:
    model = EmbeddingModel(model_dir, threads=1)
    wanted = model.encode(TEXTS)
    used, unused = copy.deepcopy(model), copy.deepcopy(model)
    used.encode("a")
    model.close()
    with pytest.raises(InvalidInputError, match="the model is closed"):
        model.encode("a")
    np.testing.assert_array_equal(used.encode(TEXTS), wanted)
    engine = used._running()
    used.close()
    assert engine._pool.closed  # type: ignore[attr-defined]
    np.testing.assert_array_equal(unused.encode(TEXTS), wanted)
    assert len(loads) == 2
    unused.close()
    with pytest.raises(InvalidInputError, match="the model is closed"):
        pickle.dumps(unused)
    with pytest.raises(InvalidInputError, match="the model is closed"):
        closed = copy.deepcopy(EmbeddingModel(model_dir))
        closed.close()
        closed.encode("a")


def test_settings_that_were_assigned_travel_along(model_dir: Path) -> None:
    with EmbeddingModel(model_dir, truncation="chunk", threads=1, max_batch_tokens=64) as model:
        model.max_length = 9
        model.truncate_dim = 7
        model.prompts = {"ask": "query : ", "other": "x"}
        model.default_prompt_name = "ask"
        for found in (travelled(model), travelled(travelled(model)), copy.deepcopy(model)):
            assert (found.max_length, found.truncate_dim, found.truncation) == (9, 7, "chunk")
            assert (found.prompts, found.default_prompt_name) == (model.prompts, "ask")
            assert (found.threads, found.max_batch_tokens) == (1, 64)
            assert found.fingerprint() == model.fingerprint()
            np.testing.assert_array_equal(found.encode(TEXTS), model.encode(TEXTS))
        unopened = travelled(model)
        unopened.truncate_dim = None  # assigned before it is used
        assert unopened.encode("a").shape == (24,)
        model.truncate_dim = None
        model.default_prompt_name = None
        again = travelled(model)
        assert (again.truncate_dim, again.default_prompt_name) == (None, None)


def test_every_task_travels(rest: dict[str, Path]) -> None:
    with Reranker(rest["reranker"], max_length=30) as reranker:
        found = travelled(reranker)
        np.testing.assert_array_equal(found.predict(PAIRS), reranker.predict(PAIRS))
        assert found.max_length == 30
    with SparseModel(rest["splade"], max_active_dims=5) as sparse:
        assert [len(one) for one in travelled(sparse).encode(TEXTS)] == [len(one) for one in sparse.encode(TEXTS)]
        sparse.max_active_dims = None
        assert travelled(sparse).max_active_dims is None
        np.testing.assert_array_equal(travelled(sparse).encode("a dog").values, sparse.encode("a dog").values)
    with LateInteractionModel(rest["late"], query_length=12) as late:
        late.document_length = 14
        other = travelled(late)
        assert (other.query_length, other.document_length) == (12, 14)
        for text in TEXTS:
            np.testing.assert_array_equal(other.encode_query(text), late.encode_query(text))
            np.testing.assert_array_equal(other.encode_document(text), late.encode_document(text))


def test_routes_travel_and_are_loaded_once(tmp_path: Path, loads: list[int]) -> None:
    document = [*transformer(tmp_path / "bert", max_seq_length=20), dense(24)]
    route = router([static(tmp_path / "static")], document, default_route="document")
    quick(save(tmp_path / "checkpoint", route), tmp_path / "model")
    with EmbeddingModel(tmp_path / "model", threads=1) as model:
        wanted = model.encode_query(TEXTS), model.encode_document(TEXTS)
        sent, query = pickle.dumps(model), pickle.dumps(model.for_role("query"))
    count = len(loads)
    for _ in range(3):
        found = pickle.loads(sent)
        np.testing.assert_array_equal(found.encode_query(TEXTS), wanted[0])
        np.testing.assert_array_equal(found.encode_document(TEXTS), wanted[1])
    assert len(loads) == 2 * count
    np.testing.assert_array_equal(pickle.loads(query).encode(TEXTS), wanted[0])


def test_devices_travel(model_dir: Path) -> None:
    with EmbeddingModel(model_dir, device_ids=[0, 1]) as model:
        wanted = model.encode(TEXTS)
        with travelled(model) as found:
            assert found.device_ids == (0, 1)
            np.testing.assert_array_equal(found.encode(TEXTS), wanted)
            assert found._running() is model._running()


class Named(EmbeddingModel):
    """A user's own class, with a constructor and an attribute of its own."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(path)
        self.name = name


def test_a_users_subclass_travels_with_its_attributes(model_dir: Path) -> None:
    model = Named("mine", model_dir)
    found = travelled(travelled(model))
    assert isinstance(found, Named)
    assert found.name == "mine"
    np.testing.assert_array_equal(found.encode("a"), model.encode("a"))
    assert type(found) is Named


def test_a_method_is_looked_up_without_opening(model_dir: Path, loads: list[int]) -> None:
    with EmbeddingModel(model_dir) as model:
        wanted, sent = model.encode("a dog"), pickle.dumps(model.encode)
    encode = pickle.loads(sent)
    assert len(loads) == 1
    np.testing.assert_array_equal(encode("a dog"), wanted)


# --- what cannot be opened where it arrives --------------------------------------------------------------------------


def test_other_files_on_arrival_are_an_error_that_names_both(tmp_path: Path, loads: list[int]) -> None:
    for seed in (0, 1):
        quick(save_sentence_transformers(tmp_path / f"checkpoint{seed}", seed=seed), tmp_path / f"model{seed}")
    directory = tmp_path / "model"
    shutil.copytree(tmp_path / "model0", directory)
    with EmbeddingModel(directory) as model:
        sent, before, target = pickle.dumps(model), model.fingerprint()[:12], model.target
    shutil.rmtree(directory)
    shutil.copytree(tmp_path / "model1", directory)
    after = EmbeddingModel(directory).fingerprint()[:12]
    assert before != after
    arrived = pickle.loads(sent)
    for _ in range(2):  # and again with the next call
        with pytest.raises(
            IntegrityError, match=rf"fingerprint {before}-{target}.fp32-\w+, and {directory} has {after}-{target}.fp32-"
        ):
            arrived.encode("a")
    shutil.rmtree(directory)
    with pytest.raises(ModelNotFoundError, match=rf"loaded from {directory}, and there is no such directory here"):
        arrived.encode("a")
    shutil.copytree(tmp_path / "model0", directory)
    assert arrived.encode("a").shape == (24,)


def test_hub_names_travel_as_name_and_commit(
    hub: FakeHub, model_dir: Path, loads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", contents(model_dir), private_token=TOKEN)
    with EmbeddingModel("org/model", token=TOKEN) as model:
        wanted, sent = model.encode("a dog"), pickle.dumps(model)
        cached = model.path
    assert TOKEN.encode() not in sent
    commit = cached.name
    assert commit.encode() in sent
    hub.add("org/model", {"README.md": b"another commit, which is no model any more"})
    np.testing.assert_array_equal(pickle.loads(sent).encode("a dog"), wanted)  # by the path: nothing is asked
    shared._registry.kept.clear()
    monkeypatch.setenv("HF_TOKEN", TOKEN)  # this machine's own
    elsewhere = sent.replace(str(cached).encode(), str(cached).replace("models--", "nowhere-").encode())
    assert elsewhere != sent
    found = pickle.loads(elsewhere)
    np.testing.assert_array_equal(found.encode("a dog"), wanted)
    assert found.path == cached


# --- other processes -------------------------------------------------------------------------------------------------

SCRIPT = """
import multiprocessing, os, sys
import numpy as np
import travelled
from fastembed_rt import EmbeddingModel

if __name__ == "__main__":
    model = EmbeddingModel(sys.argv[2], threads=1)
    model.max_length = 12
    texts = [f"a dog runs {k % 9}" for k in range(40)]
    wanted = model.encode(texts)
    jobs = [(model, texts[k : k + 5]) for k in range(0, 40, 5)]
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        found = pool.map(travelled.encode, jobs, chunksize=1)
        by_method = pool.map(model.encode, [texts[k : k + 5] for k in range(0, 40, 5)], chunksize=1)
    assert all(pid != os.getpid() for pid, _, _ in found)
    for made in ([vectors for _, _, vectors in found], by_method):
        np.testing.assert_array_equal(np.concatenate(made), wanted)
    last = {pid: opened for pid, opened, _ in found}  # of each process, in the end
    own = ["resolve_model", "open_session"]
    print([opened[len(travelled.opened) if sys.argv[1] == "fork" else 0 :] for opened in last.values()] )
"""


@pytest.mark.parametrize("start", ["spawn", "fork", "forkserver"])
def test_multiprocessing_pools(start: str, model_dir: Path, run_script: Any) -> None:
    if start not in __import__("multiprocessing").get_all_start_methods():
        pytest.skip(f"no {start} here")
    path = os.pathsep.join([str(HERE), *sys.path])
    done = run_script(SCRIPT, start, model_dir, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    # A fork has the directory opened already and starts a session of its own; the others do both, once.
    once = ["open_session"] if start == "fork" else ["resolve_model", "open_session"]
    assert all(opened == once for opened in eval(done.stdout)), done.stdout


FUTURES = """
import sys
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
import numpy as np
import travelled
from fastembed_rt import EmbeddingModel

if __name__ == "__main__":
    model = EmbeddingModel(sys.argv[1], threads=1)
    wanted = model.encode(["a dog", "a cat"])
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for vectors in pool.map(model.encode, [["a dog", "a cat"]] * 8):
            np.testing.assert_array_equal(vectors, wanted)
        found = list(pool.map(travelled.encode, [(model, ["a dog", "a cat"])] * 8))
    print(max(len(opened) for _, opened, _ in found))
"""


def test_concurrent_futures(model_dir: Path, run_script: Any) -> None:
    done = run_script(FUTURES, model_dir, PYTHONPATH=os.pathsep.join([str(HERE), *sys.path]))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert int(done.stdout) <= 2


JOBLIB = """
import sys
import joblib, numpy as np
from fastembed_rt import EmbeddingModel

model = EmbeddingModel(sys.argv[1], threads=1)
wanted = model.encode(["a dog", "a cat"])
def closure(texts):
    import os
    return os.getpid(), id(model._running()), model.encode(texts)
for backend in ("loky", "multiprocessing", "threading"):
    found = joblib.Parallel(2, backend=backend)(joblib.delayed(closure)(["a dog", "a cat"]) for _ in range(6))
    found += joblib.Parallel(2, backend=backend)(joblib.delayed(closure)(["a dog", "a cat"]) for _ in range(6))
    for _, _, vectors in found:
        np.testing.assert_array_equal(vectors, wanted)
    engines = {pid: {engine for other, engine, _ in found if other == pid} for pid, _, _ in found}
    assert all(len(one) == 1 for one in engines.values()), engines
assert joblib.hash(model) == joblib.hash(EmbeddingModel(sys.argv[1], threads=1))
"""


def test_joblib(model_dir: Path, run_script: Any) -> None:
    pytest.importorskip("joblib")
    done = run_script(JOBLIB, model_dir)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr


def test_cloudpickle(model_dir: Path, run_script: Any) -> None:
    cloudpickle = pytest.importorskip("cloudpickle")
    with EmbeddingModel(model_dir) as model:
        wanted = model.encode("a dog")
        sent = cloudpickle.dumps(lambda text: 2 * model.encode(text))
        code = "import sys, pickle; print(pickle.load(sys.stdin.buffer)('a dog').tobytes().hex())"
        import subprocess

        done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, timeout=60, check=True)
    assert (done.stdout.decode().strip(), done.stderr) == ((2 * wanted).tobytes().hex(), b"")


def test_a_fork_while_a_model_is_being_opened_waits_for_nobody(model_dir: Path, run_script: Any) -> None:
    done = run_script(
        """
import os, pickle, sys, threading
from fastembed_rt import EmbeddingModel
from fastembed_rt.models import base
sent = pickle.dumps(EmbeddingModel(sys.argv[1], threads=1))
found = pickle.loads(sent)
real, began, goes_on = base.LoadedModel._read_tokenizer, threading.Event(), threading.Event()
def slow(*arguments):
    began.set()
    goes_on.wait(30)
    return real(*arguments)
base.LoadedModel._read_tokenizer = slow
thread = threading.Thread(target=found.encode, args=("a",))
thread.start()
began.wait(30)
child = os.fork()
if not child:
    base.LoadedModel._read_tokenizer = real
    ok = found.encode("a").shape == pickle.loads(sent).encode("a").shape
    os._exit(0 if ok else 3)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
goes_on.set()
thread.join()
sys.exit(code)
""",
        model_dir,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_roles_that_changed_places_are_another_model(tmp_path: Path, loads: list[int]) -> None:
    """All files are the same, and each role has those of the other."""
    checkpoint = save_embedder(tmp_path / "jina")
    for name, *tasks in (("first", "separation", "classification"), ("second", "classification", "separation")):
        quick(checkpoint, tmp_path / f"{name}-onnx", adapter="query={},document={}".format(*tasks))
    place = tmp_path / "model"
    shutil.copytree(tmp_path / "first-onnx", place)
    with EmbeddingModel(place, threads=1) as model:
        wanted, sent = model.encode_query(TEXTS), pickle.dumps(model)
        assert np.abs(model.encode_document(TEXTS) - wanted).max() > 0.01
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "second-onnx", place)
    with pytest.raises(IntegrityError, match="another export"):
        pickle.loads(sent).encode_query(TEXTS)
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "first-onnx", place)
    np.testing.assert_array_equal(pickle.loads(sent).encode_query(TEXTS), wanted)


def test_what_the_manifest_alone_decides_is_another_model(
    rest: dict[str, Path], tmp_path: Path, loads: list[int]
) -> None:
    place = tmp_path / "model"
    shutil.copytree(rest["late"], place)
    with LateInteractionModel(place, threads=1) as model:
        sent = pickle.dumps(model)
    said = json.loads((place / "manifest.json").read_text())
    said["notes"] = ["for readers alone"]
    (place / "manifest.json").write_text(json.dumps(said))
    with pickle.loads(sent) as same:
        assert same.encode_document("the cat").shape[1] == same.dim
    said["late_interaction"]["document_skiplist"] = [5, 6, 7]
    (place / "manifest.json").write_text(json.dumps(said))
    with pytest.raises(IntegrityError, match="another export"):
        pickle.loads(sent).encode_document("the cat")
