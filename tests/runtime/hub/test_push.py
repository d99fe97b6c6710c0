"""`fastembed-rt push`: a model directory goes to a hub and opens from there, as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoints import TEXTS, save_sentence_transformers
from exports import contents, quick
from fake_hub import FakeHub
from hub_repositories import TOKEN

from fastembed_rt import EmbeddingModel, cli
from fastembed_rt.errors import IntegrityError, ModelNotFoundError
from fastembed_rt.hub.push import push

NAME = "acme/mini-onnx"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with both names of its graph."""
    root = tmp_path_factory.mktemp("push")
    quick(save_sentence_transformers(root / "mini"), root / "out", layout="hub")
    return root / "out"


@pytest.fixture
def writable(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub that knows a token; large files go there in the way that needs no service of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    hub.known_tokens |= {TOKEN, "hf_reading"}
    return hub


def test_what_is_pushed_opens_under_its_name(
    exported: Path, writable: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["push", str(exported), NAME, "--token", TOKEN, "--message", "first"]) == 0
    repository = writable.repositories[NAME]
    assert capsys.readouterr().out == f"{writable.url}/{NAME}/commit/{repository.head}\n"
    assert repository.messages[repository.head] == "first"
    pushed = {name: body for name, body in repository.commits[repository.head].items() if name != ".gitattributes"}
    assert pushed == contents(exported)
    model = EmbeddingModel(NAME)
    np.testing.assert_array_equal(model.encode(TEXTS), EmbeddingModel(exported).encode(TEXTS))
    assert not [file for file in writable.downloaded() if file.startswith("onnx/") or file == "modules.json"]


def test_weights_with_two_names_are_sent_once(exported: Path, writable: FakeHub) -> None:
    push(exported, NAME, token=TOKEN)
    sent = [request.path for request in writable.requests if request.method == "PUT"]
    assert (
        len(sent)
        == len(set(sent))
        == len({body for name, body in contents(exported).items() if name.endswith(".onnx")})
    )


def test_files_of_the_directory_before_go_and_others_stay(exported: Path, writable: FakeHub, tmp_path: Path) -> None:
    push(exported, NAME, token=TOKEN)
    writable.repositories[NAME].commits[writable.repositories[NAME].head]["mine.txt"] = b"mine"
    quick(save_sentence_transformers(tmp_path / "mini"), tmp_path / "plain")
    done = push(tmp_path / "plain", NAME, token=TOKEN)
    assert done.deleted == ("onnx/model.onnx",)
    now = writable.repositories[NAME].commits[writable.repositories[NAME].head]
    assert set(now) == {*contents(tmp_path / "plain"), ".gitattributes", "mine.txt"}


def test_a_branch_is_made_and_main_stays(exported: Path, writable: FakeHub) -> None:
    before = writable.add(NAME, {"README.md": "mine"})
    push(exported, NAME, token=TOKEN, revision="int8")
    assert writable.repositories[NAME].head == before
    np.testing.assert_array_equal(
        EmbeddingModel(NAME, revision="int8").encode(TEXTS), EmbeddingModel(exported).encode(TEXTS)
    )


def test_a_private_repository_opens_with_its_token_alone(exported: Path, writable: FakeHub) -> None:
    push(exported, NAME, token=TOKEN, private=True)
    with pytest.raises(ModelNotFoundError, match="if it is private"):
        EmbeddingModel(NAME)
    assert EmbeddingModel(NAME, token=TOKEN).encode(TEXTS[0]).shape == (24,)


def test_nothing_is_sent_of_a_directory_that_is_damaged(exported: Path, writable: FakeHub, tmp_path: Path) -> None:
    for name, body in contents(exported).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(body)
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(IntegrityError, match=r"modules\.json has"):
        push(tmp_path, NAME, token=TOKEN)
    assert writable.requests == []


@pytest.mark.parametrize(
    ("token", "said"),
    [("hf_reading", "give one with write access"), ("hf_wrong", "not to be seen|was refused"), (False, "token")],
)
def test_without_leave_to_write_the_error_says_what_is_missing(
    exported: Path, writable: FakeHub, token: str | bool, said: str
) -> None:
    with pytest.raises(ModelNotFoundError, match=said) as error:
        push(exported, NAME, token=token)
    assert "\n" not in str(error.value)
    assert NAME not in writable.repositories


def test_a_name_that_is_none_and_a_directory_that_is_none(exported: Path, writable: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no possible name"):
        push(exported, "a/b/c", token=TOKEN)
    with pytest.raises(ModelNotFoundError, match="holds no manifest"):
        push(tmp_path, NAME, token=TOKEN)
