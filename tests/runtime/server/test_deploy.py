"""The files under deploy/: what they name is there, and they agree with the server's options, routes and metrics."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastembed_rt.cli import build_parser

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
OF_OTHERS = {"HF_HUB_OFFLINE", "PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
SECONDS_TO_END = 5


def options() -> dict[str, argparse.Action]:
    """Options of `serve` by their variables."""
    parser = build_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    found = {}
    for action in commands.choices["serve"]._actions:
        if named := re.search(r"\[([A-Z_]+)[],]", action.help or ""):
            found[named[1]] = action
    return found | {"MODEL_ID": commands.choices["serve"]._actions[1]}


def check_variables(given: dict[str, Any]) -> None:
    known = options()
    for name, value in given.items():
        if name in OF_OTHERS:
            continue
        assert name in known, f"{name} is no variable of serve"
        assert isinstance(value, str), f"{name}: variables are strings, and {value!r} is none"
        kind = known[name].type
        if callable(kind):
            kind(value)


@pytest.fixture(scope="module")
def stages() -> dict[str, list[list[str]]]:
    """Instructions of the Dockerfile by stage."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, list[list[str]]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "FROM":
            assert words[2] == "AS"
            found[words[3]] = [words]
        else:
            found[next(reversed(found))].append(words)
    return found


def test_the_image_is_small_without_root_and_has_one_build(stages: dict[str, list[list[str]]]) -> None:
    final = [row for name in ("with-nothing", "default") for row in stages[name]]
    bases = [rows[0][1] for rows in stages.values() if rows[0][1] not in stages]
    assert len(set(bases)) == 1  # what is compiled in one runs in the other
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", bases[0])
    (user,) = (row[1] for row in final if row[0] == "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)  # numbers: Kubernetes' runAsNonRoot reads no names
    assert not [row for row in final if row[0] == "RUN" and ("pip" in row or "apt-get" in row)]
    (entry,) = (" ".join(row[1:]) for row in final if row[0] == "ENTRYPOINT")
    assert json.loads(entry) == ["fastembed-rt", "serve"]  # no shell: signals arrive
    assert any(row[0] == "HEALTHCHECK" for row in final)
    environment = dict(word.split("=", 1) for row in final if row[0] == "ENV" for word in row[1:])
    check_variables(environment)
    assert next(reversed(stages)) == "default"
    for name, rows in stages.items():
        for row in rows:
            sources = [word.partition("=")[2] for word in row if word.startswith("--from=")]
            assert all(source in stages for source in sources), (name, row)
            if row[0] == "RUN" and "install" in row and "apt-get" in row:
                assert {"--yes", "--no-install-recommends"} <= set(row)
                assert "/var/lib/apt/lists/*" in row


def test_the_healthcheck_asks_health(stages: dict[str, list[list[str]]]) -> None:
    (row,) = (row for row in stages["with-nothing"] if row[0] == "HEALTHCHECK")
    command = json.loads(" ".join(row[row.index("CMD") + 1 :]))
    assert command[0] == "python"
    compile(command[2], "healthcheck", "exec")
    assert "/health'" in command[2]


def test_the_context_has_what_the_package_is_built_from() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    built = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert kept == {"fastembed_rt", "export", "pyproject.toml", "README.md", "LICENSE"}
    assert 'readme = "README.md"' in built
    assert 'license-files = ["LICENSE"]' in built


def test_compose() -> None:
    file = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    service = file["services"]["embeddings"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    check_variables(service["environment"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert set(service["secrets"]) == set(file["secrets"])
    assert (
        int(service["stop_grace_period"].rstrip("s")) >= int(service["environment"]["DRAIN_SECONDS"]) + SECONDS_TO_END
    )


def kubernetes() -> Iterator[dict[str, Any]]:
    yield from yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))


def test_kubernetes() -> None:
    kinds = {document["kind"]: document for document in kubernetes()}
    assert set(kinds) == {"Deployment", "Service", "PodDisruptionBudget"}
    pod = kinds["Deployment"]["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["Service"]["spec"]["selector"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert kinds["PodDisruptionBudget"]["spec"]["minAvailable"] < kinds["Deployment"]["spec"]["replicas"]
    (container,) = pod["spec"]["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    check_variables(environment)
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert grace >= pause + int(environment["DRAIN_SECONDS"]) + SECONDS_TO_END
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert float(container["resources"]["limits"]["cpu"]).is_integer()
    ports = {port["name"] for port in container["ports"]}
    assert {entry["targetPort"] for entry in kinds["Service"]["spec"]["ports"]} <= ports
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/health",
        "readiness": "/health",
        "liveness": "/livez",
    }
    assert {probe["port"] for probe in probes.values()} <= ports
    security = pod["spec"]["securityContext"] | container["securityContext"]
    assert (security["runAsNonRoot"], security["allowPrivilegeEscalation"]) == (True, False)
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["spec"]["volumes"]
    }


def unit() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "fastembed-rt.service").read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit() -> None:
    found = unit()
    check_variables(dict(value.split("=", 1) for value in found["Environment"]))
    (command,) = found["ExecStart"]
    program, *arguments = command.split()
    assert program.endswith("/bin/fastembed-rt")
    args = build_parser().parse_args(arguments)
    assert int(found["TimeoutStopSec"][0]) >= args.drain_seconds + SECONDS_TO_END
    assert int(found["LimitNOFILE"][0]) >= args.max_connections
    assert "-HUP" in found["ExecReload"][0]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd checks it")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "fastembed-rt.service").read_text(encoding="utf-8")
    copy = tmp_path / "fastembed-rt.service"
    copy.write_text(text.replace("/opt/fastembed-rt/bin/fastembed-rt", "/bin/true"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, str(copy.name) in done.stderr) == (0, False), done.stderr


def test_the_dashboard_shows_metrics_that_there_are(directories: Any) -> None:
    from asgi_client import Client

    from fastembed_rt import EmbeddingModel
    from fastembed_rt.server.app import App
    from fastembed_rt.server.cache import VectorCache

    board = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
    with EmbeddingModel(directories.models["encoder"]) as model, App(model, cache=VectorCache(1_000_000)) as app:
        client = Client(app)
        client.post("/embed", {"inputs": "a"})
        client.post("/embed", {"inputs": 1})
        lines = client.get("/metrics").body.decode().splitlines()
        client.close()
    there = {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}
    kinds = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"]
        for target in panel["targets"]:
            expression = target["expr"]
            named = set(re.findall(r"\b(?:te_|fastembed_rt_|process_)\w+", expression))
            assert named, panel["title"]
            assert named <= there, panel["title"]
            assert expression.count("(") == expression.count(")")
            for counted in re.findall(r"rate\((\w+)", expression):
                family = counted.removesuffix("_bucket")
                assert kinds[family] in ("counter", "histogram"), f"{panel['title']}: rate of a {kinds[family]}"
    variables = {entry["name"] for entry in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(board["panels"])))
    assert used - {"__rate_interval"} <= variables


def test_the_proxy_leaves_the_limits_to_the_server() -> None:
    text = re.sub(r"#.*", "", (DEPLOY / "nginx.conf").read_text(encoding="utf-8"))
    found = dict(re.findall(r"([a-z_]+) (?:\$?\w+://)?([^;{}\n]+);", text))
    defaults = build_parser().parse_args(["serve", "m"])
    assert int(found["client_max_body_size"]) == defaults.payload_limit
    assert float(found["proxy_read_timeout"].rstrip("s")) > defaults.request_seconds
    assert float(found["keepalive_timeout"].rstrip("s")) < defaults.keep_alive_seconds
    assert found["server"] == f"{defaults.host}:{defaults.port}"
    assert f"upstream {found['proxy_pass']} " in text
