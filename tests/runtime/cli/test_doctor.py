"""The doctor: right verdicts on pretended installations, the commands that cure them, and its exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
from pathlib import Path
from typing import Any

import pytest
from doctor_facts import CUDA_LIBRARIES, GIB, GPU, HEALTHY, problems, row, with_cpu, with_machine

import fastembed_rt
from fastembed_rt import native
from fastembed_rt.cli import doctor
from fastembed_rt.cli.doctor import Finding, diagnose
from fastembed_rt.cli.environment import Facts
from fastembed_rt.run.providers import OLDEST


def test_a_healthy_installation_has_nothing_to_fix() -> None:
    findings = diagnose(HEALTHY)
    assert {finding.level for finding in findings} == {"ok"}
    assert [finding.fix for finding in findings if finding.fix] == []


def test_versions_are_listed_and_what_is_missing_says_what_it_is_for() -> None:
    facts = dataclasses.replace(HEALTHY, packages={**HEALTHY.packages, "torch": "2.13.0"})
    assert row(facts, "numpy").what == "2.4.6"
    assert row(facts, "torch").what == "2.13.0"
    assert row(facts, "onnx") == Finding(level="ok", check="onnx", what="not installed (only for: export)")
    assert row(facts, "python").what == "3.12.1 (CPython) on Linux-6.1-x86_64"
    assert row(facts, "fastembed-rt").what == fastembed_rt.__version__


@pytest.mark.parametrize("name", ["numpy", "tokenizers", "huggingface-hub"])
def test_a_missing_dependency_is_a_problem(name: str) -> None:
    packages = {package: version for package, version in HEALTHY.packages.items() if package != name}
    facts = dataclasses.replace(HEALTHY, packages=packages)
    assert problems(facts) == [name]
    assert row(facts, name).fix == f"pip install {name}"


def test_no_onnxruntime_names_both_extras() -> None:
    facts = dataclasses.replace(HEALTHY, wheels={}, onnxruntime="", providers=(), import_error="not installed")
    assert problems(facts) == ["onnxruntime"]
    fix = row(facts, "onnxruntime").fix
    assert 'pip install "fastembed-rt[cpu]"' in fix
    assert 'pip install "fastembed-rt[gpu]"' in fix


def test_two_wheels_that_overwrite_each_other_are_a_problem_even_if_they_import() -> None:
    facts = dataclasses.replace(GPU, wheels={"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.0"})
    found = row(facts, "onnxruntime")
    assert found.level == "problem"
    assert "onnxruntime 1.32.0, onnxruntime-gpu 1.31.0" in found.what
    assert found.fix.startswith('pip uninstall -y onnxruntime onnxruntime-gpu  then: pip install "fastembed-rt[gpu]"')


@pytest.mark.parametrize("other", ["onnxruntime-openvino", "onnxruntime-directml", "ort-nightly"])
def test_of_clashing_wheels_the_special_one_is_kept(other: str) -> None:
    facts = dataclasses.replace(HEALTHY, wheels={"onnxruntime": "1.32.0", other: "1.24.1"})
    assert row(facts, "onnxruntime").fix.startswith(f"pip uninstall -y onnxruntime {other}  then: pip install {other}")


def test_an_onnxruntime_that_does_not_import_is_reinstalled() -> None:
    facts = dataclasses.replace(HEALTHY, import_error="ImportError: libgomp.so.1", providers=())
    found = row(facts, "onnxruntime")
    assert found.level == "problem"
    assert "libgomp.so.1" in found.what
    assert found.fix == 'pip uninstall -y onnxruntime  then: pip install "fastembed-rt[cpu]"'


@pytest.mark.parametrize(
    ("name", "upgraded"),
    [
        ("onnxruntime", '"fastembed-rt[cpu]"'),
        ("onnxruntime-gpu", '"fastembed-rt[gpu]"'),
        ("onnxruntime-openvino", "onnxruntime-openvino"),
    ],
)
def test_an_onnxruntime_that_is_too_old_is_a_problem(name: str, upgraded: str) -> None:
    facts = dataclasses.replace(HEALTHY, wheels={name: "1.20.0"}, onnxruntime="1.20.0")
    found = row(facts, "onnxruntime")
    assert (found.level, found.what) == ("problem", f"{name} 1.20.0 is too old: {OLDEST} or newer is needed")
    assert found.fix == f"pip install --upgrade {upgraded}"


def test_an_onnxruntime_built_by_hand_is_fine() -> None:
    assert row(dataclasses.replace(HEALTHY, wheels={}), "onnxruntime").what == "1.32.0 (no wheel)"


@pytest.mark.parametrize(
    ("instruction_sets", "level", "verdict"),
    [
        (("avx2", "avx512f", "avx512_vnni"), "ok", "full speed with AVX512-VNNI"),
        (("avx2", "avx512_vnni", "amx_int8"), "ok", "full speed with AMX"),
        (("avx2", "avx_vnni"), "ok", "full speed with AVX-VNNI"),
        (("asimd", "asimddp", "i8mm"), "ok", "full speed with ARM dot products"),
        (("avx2", "fma"), "note", "AVX2 without VNNI: INT8 runs right but slower"),
        (("avx2", "avx512f"), "note", "AVX2 without VNNI: INT8 runs right but slower"),
        ((), "note", "no AVX2, VNNI or ARM dot products: INT8 is slow"),
    ],
)
def test_the_instruction_sets_decide_about_int8(instruction_sets: tuple[str, ...], level: str, verdict: str) -> None:
    found = row(with_cpu(*instruction_sets), "int8")
    assert (found.level, found.what) == (level, verdict)
    assert bool(found.fix) == (level == "note")


def test_unknown_instruction_sets_are_no_verdict() -> None:
    assert row(with_cpu(known=False), "int8").what == "this system lists no instruction sets"


def test_the_cpu_is_named_with_its_instruction_sets() -> None:
    assert row(HEALTHY, "cpu").what == "AuthenticAMD EPYC: avx2, avx512_vnni, avx512f"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"affinity": 16}, "16 (the host has 16 CPUs)"),
        ({"affinity": None}, "16 (the host has 16 CPUs)"),
        ({}, "8 (CPU affinity allows 8)"),
        ({"quota": 2.5}, "2 (the cgroup's CPU quota grants 2.5)"),
        ({"quota": 32.0}, "8 (CPU affinity allows 8)"),
    ],
)
def test_the_thread_budget_comes_with_its_reason(changes: dict[str, Any], what: str) -> None:
    assert row(with_machine(**changes), "threads") == Finding(level="ok", check="threads", what=what)


def test_less_than_one_cpu_is_worth_a_note() -> None:
    found = row(with_machine(quota=0.5), "threads")
    assert found.level == "note"
    assert found.what.startswith("1 (the cgroup's CPU quota grants 0.5)")
    assert "CPU limit" in found.fix


def test_the_memory_limit_is_told() -> None:
    assert row(HEALTHY, "memory").what == "no limit (the host has 64.0 GiB)"
    assert row(with_machine(memory=None), "memory").what == "no limit (the host does not tell)"
    limited = row(with_machine(memory_limit=2 * GIB), "memory")
    assert (limited.level, limited.what) == ("ok", "the cgroup grants 2.0 GiB (the host has 64.0 GiB)")


def test_too_little_memory_is_worth_a_note() -> None:
    found = row(with_machine(memory_limit=256 << 20), "memory")
    assert (found.level, bool(found.fix)) == ("note", True)


@pytest.mark.parametrize(
    "facts",
    [
        dataclasses.replace(HEALTHY, packages={}),
        dataclasses.replace(HEALTHY, wheels={"onnxruntime": "1", "onnxruntime-gpu": "1"}),
        dataclasses.replace(HEALTHY, wheels={}, import_error="not installed"),
        dataclasses.replace(GPU, libraries=dict.fromkeys(CUDA_LIBRARIES, "cannot open"), providers=()),
    ],
)
def test_every_problem_comes_with_a_cure(facts: Facts) -> None:
    found = [finding for finding in diagnose(facts) if finding.level == "problem"]
    assert found
    assert all(finding.fix for finding in found)


def run(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    args = parser.parse_args(["doctor", *arguments])
    code: int = args.run(args)
    return code


def pretend(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gather", lambda: facts)


def test_the_table_is_aligned_and_ends_with_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(HEALTHY, monkeypatch)
    assert run([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "no problem found"
    what = lines[0].index("3.12.1")
    assert all(line[what - 1] == " " and line[what] != " " for line in lines[:-2])


def test_problems_are_counted_shown_with_the_cure_and_exit_with_5(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(dataclasses.replace(HEALTHY, wheels={}, import_error="not installed"), monkeypatch)
    assert run([]) == 5
    lines = capsys.readouterr().out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("problem")]
    assert lines[at + 1].strip().startswith('fix: pip install "fastembed-rt[cpu]"')
    assert lines[-1] == "1 problem found"


def test_a_note_is_no_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(with_cpu("avx2"), monkeypatch)
    assert run([]) == 0
    assert "note" in capsys.readouterr().out


@pytest.mark.parametrize(("facts", "code"), [(HEALTHY, 0), (dataclasses.replace(HEALTHY, packages={}), 5)])
def test_machines_get_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], facts: Facts, code: int
) -> None:
    pretend(facts, monkeypatch)
    assert run(["--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == len(problems(facts))
    assert [Finding(**finding) for finding in report["findings"]] == diagnose(facts)


def test_a_compiler_is_named_only_where_compiling_helps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def remedy(system: str, machine: str, library: str | None) -> str:
        place = tmp_path / "operators.so"
        place.unlink(missing_ok=True)
        if library is not None:
            place.write_text(library)
        monkeypatch.setattr(native, "library", lambda: place)
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(platform, "machine", lambda: machine)
        return native.remedy()

    assert "install a C compiler" in remedy("linux", "x86_64", None)
    assert "install a C compiler" in remedy("linux", "aarch64", None)
    assert remedy("linux", "riscv64", None) == ""
    assert remedy("win32", "AMD64", None) == ""
    assert remedy("linux", "x86_64", "of another system") == ""
    missing = dataclasses.replace(HEALTHY, no_kernels="there are no kernels for Linux on riscv64 yet")
    assert row(missing, "operators").fix == ""
    told = dataclasses.replace(missing, kernel_remedy=native.COMPILE)
    assert row(told, "operators").fix == native.COMPILE


@pytest.mark.parametrize(
    ("version", "sets", "runs"), [("1.29.0", "avx2", False), ("1.30.0", "avx2", True), ("1.29.0", "avx512_vnni", True)]
)
def test_stock_int8_that_overflows_is_told(version: str, sets: str, runs: bool) -> None:
    facts = dataclasses.replace(with_cpu("avx2", sets), onnxruntime=version, no_kernels="there is no compiler")
    found = row(facts, "operators")
    assert ("INT8 on none: this processor wants onnxruntime 1.30" in found.what) == (not runs)
    assert (found.fix == "pip install --upgrade onnxruntime") == (not runs)


def test_kernels_that_the_compiler_left_out_are_named() -> None:
    facts = dataclasses.replace(HEALTHY, kernels="avx2", left_out="avxvnni", kernel_remedy=native.COMPILE_ALL)
    found = row(facts, "operators")
    assert (found.level, found.fix) == ("note", native.COMPILE_ALL)
    assert found.what == (
        "our own run, with avx2 kernels (target native); the avxvnni kernels, which are faster here, were left out: "
        "the compiler was too old"
    )
