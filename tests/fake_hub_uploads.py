"""What the fake hub does with uploads: repositories, branches, large files, commits."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fake_hub import FakeHub, FakeRepository, Handler

EMPTY = {".gitattributes": b"*.onnx filter=lfs\n"}  # what a repository begins with


def answer(handler: Handler, path: str, body: bytes, token: str | None) -> None:
    """Answer one POST or PUT."""
    hub = handler.hub
    if path.startswith("/objects/"):
        hub.objects[hashlib.sha256(body).hexdigest()] = body
        handler.send(200)
    elif token is None:
        handler.fail(401, None, "Invalid username or password.")
    elif token.endswith("reading"):
        handler.fail(403, None, "this token may not write")
    elif path == "/api/repos/create":
        _create(handler, json.loads(body), token)
    elif path == "/api/validate-yaml":  # of the card
        _json(handler, {"errors": [], "warnings": []})
    elif path.endswith(".git/info/lfs/objects/batch"):
        _json(handler, {"transfer": "basic", "objects": [_place(hub, one) for one in json.loads(body)["objects"]]})
    else:
        name, verb, branch = next(
            (*path.removeprefix("/api/models/").partition(f"/{verb}/"),)
            for verb in ("branch", "preupload", "commit")
            if f"/{verb}/" in path
        )
        _change(handler, name, verb.strip("/"), branch, body)


def _create(handler: Handler, wanted: dict[str, Any], token: str) -> None:
    name = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
    if name in handler.hub.repositories:
        _json(handler, {"url": f"{handler.hub.url}/{name}", "error": "You already created this model repo"}, 409)
        return
    private = wanted.get("private") or wanted.get("visibility") == "private"
    handler.hub.add(name, EMPTY, private_token=token if private else None)
    _json(handler, {"url": f"{handler.hub.url}/{name}"})


def _place(hub: FakeHub, wanted: dict[str, Any]) -> dict[str, Any]:
    """Where a large file goes; one whose content is there goes nowhere."""
    known = wanted["oid"] in hub.objects
    actions = {} if known else {"actions": {"upload": {"href": f"{hub.store}/objects/{wanted['oid']}"}}}
    return {"oid": wanted["oid"], "size": wanted["size"], **actions}


def _change(handler: Handler, name: str, verb: str, branch: str, body: bytes) -> None:
    repository = handler.hub.repositories[name]
    commit = repository.at(branch)
    if verb == "branch":
        if commit is not None:
            _json(handler, {"error": "Reference already exists"}, 409)
            return
        head = repository.head
        copy = hashlib.sha1(f"{branch} {head}".encode()).hexdigest()
        repository.commits[copy] = repository.commits[head]
        repository.branches[branch] = copy
        _json(handler, {})
    elif commit is None:
        handler.fail(404, "RevisionNotFound", f"Invalid rev id: {branch}")
    elif verb == "preupload":
        files = json.loads(body)["files"]
        modes = [("lfs" if file["path"].endswith((".onnx", "_data")) else "regular") for file in files]
        made = [
            {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            for file, mode in zip(files, modes, strict=True)
        ]
        _json(handler, {"files": made})
    elif (parent := json.loads(body.splitlines()[0])["value"].get("parentCommit")) not in (None, commit):
        handler.fail(412, None, f"A commit has happened since {parent}.")
    else:
        made_commit = _commit(handler.hub, repository, branch, commit, [json.loads(line) for line in body.splitlines()])
        url = f"{handler.hub.url}/{name}/commit/{made_commit}"
        _json(handler, {"success": True, "commitOid": made_commit, "commitUrl": url})


def _commit(hub: FakeHub, repository: FakeRepository, branch: str, before: str, lines: list[dict[str, Any]]) -> str:
    content = dict(repository.commits[before])
    message = ""
    for line in lines:
        value = line["value"]
        if line["key"] == "header":
            message = value["summary"]
        elif line["key"] == "file":
            content[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            content[value["path"]] = hub.objects[value["oid"]]
        else:
            assert line["key"] == "deletedFile", line
            del content[value["path"]]
    seed = f"{branch} {len(repository.commits)} {message}".encode() + b"".join(content.values())
    made = hashlib.sha1(seed).hexdigest()
    repository.commits[made] = dict(sorted(content.items()))
    repository.messages[made] = message
    if branch == "main":
        repository.main = made
    else:
        repository.branches[branch] = made
    return made


def _json(handler: Handler, body: object, status: int = 200) -> None:
    handler.send(status, json.dumps(body).encode(), {"Content-Type": "application/json"})
