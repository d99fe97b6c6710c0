"""What docs/server.md and docs/operating.md say of routes and limits is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from asgi_client import Client

from fastembed_rt import cli

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_names_every_route_and_no_other(client: Client) -> None:
    page = (DOCS / "server.md").read_text(encoding="utf-8")
    rows = re.search(r"^## Routes\n\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert rows
    named = set(re.findall(r"`(/[^`]*)`", rows[1]))
    named.remove("/v1")  # Google's again
    named |= {path.replace("/v1beta/", "/v1/") for path in named}
    assert named == {route.path.replace("{}", "{name}") for route in client.app.table.routes}


@pytest.mark.parametrize("page", ["server.md", "operating.md"])
def test_limits_have_the_defaults_of_the_command_line(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    text = (DOCS / page).read_text(encoding="utf-8")
    rows = re.findall(r"`(--[a-z-]+)`(?:, | \| | \(| seconds \()(?!4\d\d\b)(\d[\d,]*)", text)  # 4..: a status
    assert len(rows) >= 5
    for option, number in rows:
        default = re.search(rf" {option} [A-Z]\w* [^(]*\(default: ([\d.]+)\)", said)
        assert default, option
        assert float(default[1]) == float(number.replace(",", "")), option
