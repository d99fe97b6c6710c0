"""`fastembed-rt push`: a model directory goes to a hub and opens from there, as it was."""

from __future__ import annotations

import hashlib
import re
import signal
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


COMMIT = f"/api/models/{NAME}/commit/main"


@pytest.mark.parametrize(
    ("path", "status", "words", "said"),
    [
        (COMMIT, 400, 'Invalid metadata: "license" must be one of', '"license" must be one of'),
        (COMMIT, 403, "Private repository storage limit reached", "storage limit reached"),
        (COMMIT, 409, "Conflict", "something else is changing it; try again"),
        (COMMIT, 500, "boom", "try again later"),
        ("/api/validate-yaml", 400, "license: no such", "answered 400 for the upload .*license: no such"),
        ("OBJECT", 403, "expired", "answered 403 for the upload .*expired"),
    ],
)
def test_what_the_hub_says_is_said(
    exported: Path,
    writable: FakeHub,
    capsys: pytest.CaptureFixture[str],
    path: str,
    status: int,
    words: str,
    said: str,
) -> None:
    before = writable.add(NAME, {"README.md": "mine"})
    large = hashlib.sha256((exported / "model.onnx").read_bytes()).hexdigest()
    writable.broken_paths[path.replace("OBJECT", f"/objects/{large}")] = (status, words)
    assert cli.main(["push", str(exported), NAME, "--token", TOKEN, "--quiet"]) == 3
    (line,) = capsys.readouterr().err.splitlines()  # no bars beside it
    assert re.search(said, line)
    assert "try again later" not in line or status == 500
    assert writable.repositories[NAME].head == before


LEFT = "was made for this and is left: push again, or delete it with: hf repos"


@pytest.mark.parametrize(
    ("there", "revision", "said"),
    [
        (False, [], f"; the repository {NAME} {LEFT} delete {NAME}"),
        (False, ["--revision", "int8"], f"; the repository {NAME} {LEFT} delete {NAME}"),  # the branch with it
        (True, ["--revision", "int8"], f"; the branch int8 of {NAME} {LEFT} branch delete {NAME} int8"),
        (True, [], None),
    ],
)
@pytest.mark.parametrize("ends", [None, signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("terminal_signals")
def test_what_was_made_and_is_left_by_a_push_that_fails_is_named(
    exported: Path,
    writable: FakeHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    there: bool,
    revision: list[str],
    said: str | None,
    ends: int | None,
) -> None:
    import huggingface_hub

    if there:
        writable.add(NAME, {"README.md": "mine"})
    send = huggingface_hub.HfApi.preupload_lfs_files

    def failing(*_: object, **__: object) -> None:
        if ends is None:
            raise RuntimeError("Error while uploading 'model.onnx' to the Hub.") from ConnectionResetError(104, "reset")
        signal.raise_signal(ends)

    monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", failing)
    command = ["push", str(exported), NAME, "--token", TOKEN, "--quiet", *revision]
    assert cli.main(command) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(said) if said else LEFT not in line
    monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", send)
    assert cli.main(command) == 0  # what is left is in nobody's way


def test_a_hub_that_does_not_answer_is_said_of_the_upload(
    exported: Path, writable: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def reset(*_: object, **__: object) -> None:
        raise RuntimeError("Error while uploading 'model.onnx' to the Hub.") from ConnectionResetError(104, "reset")

    monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", reset)
    with pytest.raises(ModelNotFoundError, match=r"the upload of .* failed \(ConnectionResetError.*push again"):
        push(exported, NAME, token=TOKEN)


def test_a_push_beside_another_does_not_mix_with_it(
    exported: Path, writable: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that the other one brought would stay, as no manifest names them."""
    import huggingface_hub

    quick(save_sentence_transformers(tmp_path / "mini"), tmp_path / "plain")
    send = huggingface_hub.HfApi.preupload_lfs_files

    def beside(api: object, *arguments: object, **options: object) -> None:
        monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", send)
        push(exported, NAME, token=TOKEN)
        send(api, *arguments, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "preupload_lfs_files", beside)
    with pytest.raises(ModelNotFoundError, match="something else has changed it meanwhile; try again"):
        push(tmp_path / "plain", NAME, token=TOKEN)
    assert EmbeddingModel(NAME).encode(TEXTS[0]).shape == (24,)
    assert push(tmp_path / "plain", NAME, token=TOKEN).deleted == ("onnx/model.onnx",)


def test_a_name_without_an_organization_makes_no_repository(exported: Path, writable: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError, match="'mini' is no possible name of one"):
        push(exported, "mini", token=TOKEN)
    assert writable.requests == []


@pytest.mark.parametrize("token", ["hf_right\r", "hf_r\xfcght"])
def test_a_token_that_cannot_be_one_is_not_shown(
    exported: Path, writable: FakeHub, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    for command in (["push", str(exported), NAME], ["info", NAME]):
        assert cli.main([*command, "--token", token]) == 2
        assert "hf_r" not in capsys.readouterr().err
    assert writable.requests == []
