"""Which package may import which: as the tables say, one way, without a circle; CONTRIBUTING has the same tables."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = {"fastembed_rt": ROOT, "fastembed_rt_export": ROOT / "export", "benchmarks": ROOT}
EXPORTING = "fastembed_rt/cache/exporting.py"  # the runtime's one way to the export stage beside its commands
# By distribution: a row a package or module on its first level, lower ones first, with all that it imports, also late.
LAYERS = {
    "fastembed_rt": """
    errors pyinstaller records
    machine: records
    native: machine
    manifest: errors records
    precisions: manifest
    files: errors manifest
    system: errors machine
    text: errors manifest native records
    vectors: errors manifest records text
    hub: errors files manifest records system
    run: errors files manifest native precisions records system
    cache: errors hub manifest system
    models: cache errors files hub machine manifest precisions records run system text vectors
    compat: errors manifest models run text vectors
    search: errors models system text vectors
    integrations: compat errors manifest models search text vectors
    scale: errors hub machine manifest models system text vectors
    server: errors hub manifest models run system text vectors
    bulk: errors system
    __init__: errors models run
    cli: bulk cache errors files hub integrations machine manifest models native precisions run search server system
        text vectors
    __main__: cli
    """,
    "fastembed_rt_export": """
    errors __init__
    graph settings: errors
    files: errors settings
    tensors: errors files graph
    architectures: errors graph tensors
    adapters: errors files graph settings tensors
    static masked_lm: architectures errors graph tensors
    traced: architectures errors graph tensors
    checkpoint: adapters architectures errors files graph settings static tensors traced
    tokenizer: checkpoint errors files
    heads: checkpoint errors graph
    gate: architectures checkpoint errors static tensors tokenizer
    quantize: errors gate graph
    variants: errors gate graph quantize
    directory: checkpoint errors files gate graph tokenizer variants
    tasks: adapters architectures checkpoint errors files gate graph heads masked_lm quantize settings static tensors
        tokenizer variants
    pipeline: adapters checkpoint directory errors gate graph quantize tasks tokenizer variants
    """,
    "benchmarks": """
    errors demo
    nodes: errors
    data report: errors
    inside: errors report
    precision: data errors report
    gpu: data precision
    compare: data errors report
    load: compare data errors
    bulk: compare data errors
    """,
}


def table(package: str) -> dict[str, set[str]]:
    """What each room may import."""
    found = {}
    for line in re.sub(r"\n {8,}", " ", LAYERS[package]).strip().splitlines():  # a long row goes on further in
        rooms, _, imported = line.partition(":")
        found.update({room: set(imported.split()) for room in rooms.split()})
    return found


def imports(package: str) -> dict[str, set[str]]:
    """What each room imports of the others."""
    found: dict[str, set[str]] = {}
    for file in sorted((SOURCES[package] / package).rglob("*.py")):
        here = file.relative_to(SOURCES[package]).with_suffix("").parts
        room = here[1] if len(here) > 2 else here[-1]
        others = found.setdefault(room, set())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            for parts in _named(node, here[:-1]):
                if parts[0] == package and len(parts) > 1 and _is_room(package, parts[1]):
                    others.add(parts[1])
        others.discard(room)
    return found


def _named(node: ast.AST, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    if isinstance(node, ast.Import):
        return [tuple(alias.name.split(".")) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = (*base, *(node.module.split(".") if node.module else ()))
        return [(*module, alias.name) for alias in node.names]
    return []


def _is_room(package: str, name: str) -> bool:
    place = SOURCES[package] / package / name
    return place.is_dir() or place.with_suffix(".py").is_file()


@pytest.mark.parametrize("package", LAYERS)
def test_each_package_imports_what_the_table_gives_it_and_no_less(package: str) -> None:
    assert imports(package) == table(package)


@pytest.mark.parametrize("package", LAYERS)
def test_the_table_has_no_circle_and_lower_rows_first(package: str) -> None:
    allowed = table(package)
    list(TopologicalSorter(allowed).static_order())
    seen: set[str] = set()
    for room, others in allowed.items():
        assert others <= seen, f"{room} stands above what it imports"
        seen.add(room)


def test_the_runtime_knows_the_export_stage_in_its_commands_and_in_one_module_of_the_cache() -> None:
    for file in (ROOT / "fastembed_rt").rglob("*.py"):
        body = ast.parse(file.read_text(encoding="utf-8"))
        if _of_export(ast.walk(body)):
            assert file.parent.name == "cli" or file.relative_to(ROOT).as_posix() == EXPORTING, file
            assert not _of_export(body.body), f"{file} imports it before there is something to export"


def _of_export(nodes: Iterable[ast.AST]) -> bool:
    return any(parts[0] == "fastembed_rt_export" for node in nodes for parts in _named(node, ()))


def test_contributing_has_the_same_tables() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for package, lines in LAYERS.items():
        for line in (line.strip() for line in lines.strip().splitlines()):
            assert f"    {line}\n" in page, f"{package}: {line}"


def test_no_file_name_is_there_twice_in_the_benchmarks() -> None:
    names = [file.name for file in (ROOT / "benchmarks").rglob("*.py") if not file.name.startswith(("__", "conftest"))]
    assert sorted(set(names)) == sorted(names)


def test_no_file_name_is_there_twice_in_the_tests() -> None:
    """pytest imports them by their bare names, but in packages: the second of one name ends the run of all."""
    places: dict[str, list[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        if not path.with_name("__init__.py").exists():
            places.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    assert not [found for found in places.values() if len(found) > 1]
