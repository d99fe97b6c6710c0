"""What a client is: an environment, a script, and what each call of the script must give; and how it is run.

`make clients` makes the environments. A script takes the case from stdin and writes what its calls gave to stdout; see
scripts/calls.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from clients.checks import Check, Expected, Raises

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).with_name("scripts")
ENVIRONMENTS = Path(os.environ.get("FASTEMBED_RT_CLIENTS", ROOT / "build" / "clients"))


@dataclass(frozen=True)
class Client:
    """A client as one test runs it."""

    name: str
    environment: str  # folder in ENVIRONMENTS
    script: str
    calls: Mapping[str, Check | Raises]

    def missing(self) -> str | None:
        """Why it cannot be run here, if so."""
        place = ENVIRONMENTS / self.environment
        if (place / ("node_modules" if self.environment == "node" else "bin/python")).exists():
            return None
        return f"{place} is not there; make clients makes it"

    def run(self, case: Mapping[str, Any]) -> dict[str, Any]:
        """Its version and what its calls gave."""
        place = ENVIRONMENTS / self.environment
        script = SCRIPTS / self.script
        if self.environment == "node":  # which looks for modules where the script lies
            for name in ("calls.mjs", self.script):
                (place / name).write_text((SCRIPTS / name).read_text(encoding="utf-8"), encoding="utf-8")
            command = ["node", str(place / self.script)]
        else:
            command = [str(place / "bin" / "python"), str(script)]
        offline = {
            "ANONYMIZED_TELEMETRY": "false",
            "HAYSTACK_TELEMETRY_ENABLED": "false",
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
            "NO_PROXY": "127.0.0.1",
        }
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        # Some leave settings and tables at home, and some call pip by its name: theirs, never that of who runs this.
        kept["PATH"] = os.pathsep.join([str(place / "bin"), kept.get("PATH", os.defpath)])
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                command,
                input=json.dumps(case),
                env={**kept, **offline, "HOME": home, "XDG_DATA_HOME": home, "PIP_NO_INDEX": "1"},
                cwd=home,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        assert done.returncode == 0, f"{self.name}: {done.stderr[-3000:]}"
        told: dict[str, Any] = json.loads(done.stdout[done.stdout.index('{"version"') :])
        return told


def check(client: Client, told: Mapping[str, Any], expected: Expected) -> None:
    """Every call that the table names, and no other; all that fail are told."""
    assert set(told["calls"]) == set(client.calls)
    failed = []
    for name, wanted in client.calls.items():
        found = told["calls"][name]
        try:
            if isinstance(wanted, Raises):
                wanted.check(found)
            else:
                assert "gave" in found, found
                wanted(found["gave"], expected)
        except AssertionError as error:
            failed.append(f"{name}: {error}")
    if failed:
        pytest.fail(f"{client.name} {told['version']}\n" + "\n".join(failed))
