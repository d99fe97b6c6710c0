"""The hub that refuses, fails or is not there: one line each, which names what to do and never the token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub, running_hub
from hub_repositories import CHECKPOINT, MODEL, NAME, TOKEN, default_files, fails, point_at, says

import fastembed_rt
from fastembed_rt.errors import InvalidInputError, MissingDependencyError, ModelNotFoundError
from fastembed_rt.hub.resolve import resolve_checkpoint, resolve_model

# Access


def test_the_token_is_sent_with_every_request_to_the_hub_and_to_nobody_else(hub: FakeHub) -> None:
    commit = hub.add(NAME, CHECKPOINT, private_token=TOKEN)
    assert resolve_checkpoint(NAME, token=TOKEN).revision == commit
    # huggingface_hub asks for other things of its own too, once a process.
    asked = [request for request in hub.requests if NAME in request.path]
    assert {request.token for request in asked} == {TOKEN}
    assert {request.token for request in hub.requests if request.path.startswith("/large/")} == {None}


def test_the_token_of_the_environment_is_used(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hub.add(NAME, MODEL, private_token=TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert resolve_model(NAME, files=default_files).name == commit


def test_no_token_is_sent_where_the_caller_forbids_it(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, MODEL)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    resolve_model(NAME, files=default_files, token=False)
    assert {request.token for request in hub.requests} == {None}


def test_a_private_repository_is_refused_without_a_token(hub: FakeHub) -> None:
    hub.add(NAME, MODEL, private_token=TOKEN)
    fails(NAME, NAME, hub.url, "spelling", "private", "HF_TOKEN")


def test_a_private_repository_is_refused_with_the_token_of_another(hub: FakeHub) -> None:
    hub.add(NAME, MODEL, private_token=TOKEN)
    hub.known_tokens.add("hf_other")
    fails(NAME, "spelling", "the token in use has no access", token="hf_other")


def test_a_token_that_the_hub_does_not_know_is_said_to_be_refused(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)
    fails(NAME, "401", "the token was refused", token="hf_wrong")


def test_no_message_holds_the_token(hub: FakeHub) -> None:
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(NAME, token="hf_wrong")
    assert "hf_wrong" not in str(error.value)


def test_a_stored_token_that_does_not_exist_cannot_be_asked_for(hub: FakeHub) -> None:
    hub.add(NAME, MODEL)
    with pytest.raises(InvalidInputError) as error:
        resolve_model(NAME, files=default_files, token=True)
    says(error, "no token is stored", "hf auth login")


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_gated_repository_says_where_to_ask_for_access(hub: FakeHub, token: str | None) -> None:
    hub.add(NAME, CHECKPOINT, gated=True)
    hub.known_tokens.add(TOKEN)
    fails(NAME, "gated", f"{hub.url}/{NAME}", "token", token=token)


def test_a_repository_that_does_not_exist_may_be_a_typing_error(hub: FakeHub) -> None:
    fails("acme/minni", "acme/minni", "spelling", hub.url)


def test_a_revision_that_does_not_exist_is_named(hub: FakeHub) -> None:
    hub.add(NAME, CHECKPOINT)
    fails(NAME, NAME, "'v9'", f"{hub.url}/{NAME}", revision="v9")


@pytest.mark.parametrize("name", ["two words", "acme/mini?", "acme/-mini", "mini\0", "ac..me/mini"])
def test_what_cannot_be_a_repository_is_refused_without_asking(hub: FakeHub, name: str) -> None:
    fails(name, "org/name")
    assert hub.requests == []


# Connection


def test_an_empty_cache_offline_says_how_to_fill_it(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, CHECKPOINT)
    fails(
        NAME,
        "not in the cache",
        str(tmp_path / "cache"),
        "local_files_only",
        "HF_HUB_OFFLINE",
        f"hf download {NAME} --local-dir",
        local_files_only=True,
    )
    assert hub.requests == []


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub retries with growing pauses."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.mark.usefixtures("no_waiting")
def test_a_hub_that_cannot_be_reached_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        point_at(nobody, monkeypatch)
        fails(NAME, NAME, nobody, "cannot be reached", "check the connection")


@pytest.mark.usefixtures("no_waiting")
def test_the_cache_serves_when_the_connection_is_gone(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add(NAME, CHECKPOINT)
    hub.add("acme/model", MODEL)
    checkpoint, model = resolve_checkpoint(NAME), resolve_model("acme/model", files=default_files)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        point_at(f"http://127.0.0.1:{unused.getsockname()[1]}", monkeypatch)
        assert resolve_checkpoint(NAME) == checkpoint
        assert resolve_model("acme/model", files=default_files) == model


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(("status", "advice"), [(403, "read access"), (503, "try again later")])
def test_a_hub_that_answers_something_else_is_quoted(hub: FakeHub, status: int, advice: str) -> None:
    hub.add(NAME, {**MODEL, **CHECKPOINT})
    hub.broken_paths = {f"/{NAME}/resolve/main/{file}": status for file in ("manifest.json", "modules.json")}
    fails(NAME, hub.url, str(status), advice)


@pytest.mark.usefixtures("no_waiting")
def test_a_listing_that_fails_is_not_taken_for_an_empty_one(hub: FakeHub) -> None:
    commit = hub.add(NAME, CHECKPOINT)
    hub.broken_paths[f"/api/models/{NAME}/tree/{commit}"] = 500
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(NAME)
    says(error, "500", "list of files", NAME)


def test_a_cache_that_cannot_be_written_is_named(hub: FakeHub, tmp_path: Path) -> None:
    hub.add(NAME, {**MODEL, **CHECKPOINT})
    (tmp_path / "file").touch()
    fails(NAME, str(tmp_path / "file"), "can be written", cache_dir=tmp_path / "file" / "cache")


# The package around


def test_a_missing_huggingface_hub_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError) as error:
        resolve_model(NAME, files=default_files)
    says(error, "pip install huggingface-hub", "local directory")


def run_python(code: str, tmp_path: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **clean,
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(Path(fastembed_rt.__file__).parents[1]),
            "HF_HOME": str(tmp_path / "home"),
            **environment,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_settings_of_huggingface_hub_are_those_of_the_environment(tmp_path: Path) -> None:
    code = f"from fastembed_rt.hub import resolve; print(resolve.resolve_checkpoint({NAME!r}))"
    with running_hub() as hub:
        commit = hub.add(NAME, CHECKPOINT, private_token=TOKEN)
        first = run_python(code, tmp_path, HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
        assert commit in first and str(tmp_path / "home") in first
        asked = len(hub.requests)
        assert run_python(code, tmp_path, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1") == first
        assert len(hub.requests) == asked


def test_offline_by_the_environment_says_so(tmp_path: Path) -> None:
    code = (
        "from fastembed_rt import errors\nfrom fastembed_rt.hub import resolve\n"
        f"try: resolve.resolve_checkpoint({NAME!r})\n"
        "except errors.ModelNotFoundError as error: print(error)"
    )
    message = run_python(code, tmp_path, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE=1" in message and "modules.json" in message and "\n" not in message


def test_importing_the_resolver_does_not_import_huggingface_hub(tmp_path: Path) -> None:
    code = "import sys; from fastembed_rt.hub import resolve; print('huggingface_hub' in sys.modules)"
    assert run_python(code, tmp_path) == "False"
