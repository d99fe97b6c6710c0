"""SentenceTransformer that is copied, pickled, shared among processes, saved and pushed."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense_calls import TEXTS
from same_results import same

from fastembed_rt.compat import sentence_transformers as compat


def test_pools_give_equal_vectors(ours: Any, reference: Any) -> None:
    texts = TEXTS * 8
    alone = ours.encode(texts)
    for devices in (None, ["cpu", "cpu"]):
        pool = ours.start_multi_process_pool(devices)
        assert set(pool) == {"input", "output", "processes"}
        assert np.array_equal(ours.encode(texts, pool=pool, chunk_size=3), alone)
        assert np.array_equal(ours.encode_multi_process(texts, pool, batch_size=4), alone)
        by_place = (None, "the new ", 4, 3, False, "binary", True, 8)  # chunk_size before show_progress_bar
        codes = ours.encode(texts, prompt="the new ", precision="binary", normalize_embeddings=True, truncate_dim=8)
        assert np.array_equal(ours.encode_multi_process(texts, pool, *by_place), codes)
        ours.stop_multi_process_pool(pool)
        compat.SentenceTransformer.stop_multi_process_pool(pool)
    assert np.array_equal(ours.encode(texts, device=["cpu", "cpu"]), alone)
    same(alone, reference.encode(texts))
    with pytest.raises(ValueError, match="chunk_size"):
        ours.encode(texts, device=["cpu"], chunk_size=0)


def test_copies_and_pickles_keep_what_was_set(pair: Any) -> None:
    model = compat.SentenceTransformer(str(pair.directory), truncate_dim=8, threads=1)
    model.max_seq_length = 9
    model.prompts["mine"] = "the new "
    model.similarity_fn_name = "dot"
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.encode(TEXTS, prompt_name="mine"), model.encode(TEXTS, prompt_name="mine"))
        assert (other.max_seq_length, other.similarity_fn_name, other._model.threads) == (9, "dot", 1)
        other.max_seq_length = 5
        other.prompts.clear()
    assert model.max_seq_length == 9
    assert model.prompts["mine"] == "the new "


def test_copies_share_an_engine_and_refer_to_themselves(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = compat.SentenceTransformer(str(pair.directory))
    model.prompts["mine"] = "the new "
    opened: list[Any] = []
    of = compat.SentenceTransformer._opened

    def watched(self: Any, *given: Any) -> Any:
        opened.append(of(self, *given))
        return opened[-1]

    monkeypatch.setattr(compat.SentenceTransformer, "_opened", watched)
    copies = [copy.copy(model), copy.deepcopy(model)]
    for other in copies:
        np.testing.assert_array_equal(other.encode(TEXTS), model.encode(TEXTS))
        other.max_seq_length = 5
    assert not opened
    assert copies[0]._model._engine is copies[1]._model._engine
    assert model.max_seq_length == 16
    deep, arrived = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    assert [entry is arrived._model for entry in opened] == [True], "once"
    for other in (deep, arrived):
        assert other.prompts == model.prompts
        assert other.prompts is not model.prompts
        assert other.model_card_data.model is other


def test_another_device_is_asked_for_with_the_hub_token(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = compat.SentenceTransformer(str(pair.directory), token="a-secret")
    opened: list[Any] = []
    monkeypatch.setattr(model, "_open", lambda _: opened.append({**model._options}))
    model.to("cuda")
    assert [(options["provider"], options["token"]) for options in opened] == [("cuda", "a-secret")]


def test_what_is_pickled_has_no_hub_token(pair: Any) -> None:
    model = compat.SentenceTransformer(str(pair.directory), token="a-secret")
    packed = pickle.dumps(model)
    assert b"a-secret" not in packed
    assert np.array_equal(pickle.loads(packed).encode(TEXTS), model.encode(TEXTS))


def test_what_is_saved_opens_with_what_was_set(pair: Any, tmp_path: Path) -> None:
    model = compat.SentenceTransformer(str(pair.directory), default_prompt_name="query", similarity_fn_name="dot")
    model.max_seq_length = 9
    model.prompts["mine"] = "the new "
    model.save_pretrained(str(tmp_path / "saved"))
    model.save(str(tmp_path / "saved"), create_model_card=False)  # again, over the first
    again = compat.SentenceTransformer(str(tmp_path / "saved"))
    assert np.array_equal(again.encode(TEXTS), model.encode(TEXTS))
    assert (again.prompts, again.default_prompt_name) == (model.prompts, "query")
    assert (again.similarity_fn_name, again.max_seq_length) == ("dot", 9)
    plain = compat.SentenceTransformer(str(pair.directory))
    assert plain.max_seq_length == 16  # the source is as it was
    plain.save(str(tmp_path / "bare"), create_model_card=False)
    assert (tmp_path / "bare" / "manifest.json").read_bytes() == (pair.directory / "manifest.json").read_bytes()
    assert not (tmp_path / "bare" / "README.md").exists()


def test_it_is_pushed_with_the_calls_of_huggingface_hub(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import CommitInfo, HfApi, RepoUrl

    sent: dict[str, Any] = {}

    def upload(self: Any, *, folder_path: str, **options: Any) -> CommitInfo:
        sent.update(options, files={file.name for file in Path(folder_path).iterdir()})
        url = f"https://huggingface.co/{options['repo_id']}/commit/0123"
        pr = "https://huggingface.co/me/small/discussions/2"
        return CommitInfo(commit_url=url, commit_message="", commit_description="", oid="0123", pr_url=pr)

    monkeypatch.setattr(
        HfApi,
        "create_repo",
        lambda self, repo_id, **_: RepoUrl(f"https://huggingface.co/me/{repo_id.removeprefix('me/')}"),
    )
    monkeypatch.setattr(HfApi, "create_branch", lambda self, repo_id, branch, **_: sent.update(made=branch))
    monkeypatch.setattr(HfApi, "file_exists", lambda self, *_, **__: True)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert huggingface_hub.HfApi is HfApi
    assert ours.push_to_hub("small") == "https://huggingface.co/me/small/commit/0123"
    assert "manifest.json" in sent["files"]
    assert "README.md" not in sent["files"]  # the one that is there stays
    assert sent["revision"] is None
    url = ours.push_to_hub("small", replace_model_card=True, revision="new", create_pr=True, commit_message="Mine")
    assert url.endswith("/discussions/2")
    assert (sent["made"], sent["commit_message"], sent["create_pr"]) == ("new", "Mine", True)
    assert "README.md" in sent["files"]
    assert ours.model_card_data.model_id == "me/small"
    for repo_id in ("small", "me/small"):
        assert ours.save_to_hub(repo_id, organization="me").endswith("/commit/0123")
    with pytest.raises(ValueError, match="not the owner"):
        ours.save_to_hub("you/small", organization="me")
