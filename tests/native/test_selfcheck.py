"""The operators look at themselves once, and step aside with a reason where they compute something else."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
import time
from pathlib import Path

import pytest
from instructions_in_c import alone

from fastembed_rt import native
from fastembed_rt.cli.doctor import check_cpu
from fastembed_rt.cli.environment import gather
from fastembed_rt.machine import describe
from fastembed_rt.native import build

runs = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")

# Included before everything: instructions that do something else where `fault` says so, under the names that the
# kernels use. A fault has the number of its place in WRONG, from 1 on; 0: none.
FAULTS = r"""
#include <stdlib.h>
static int fault;
__attribute__((constructor)) static void choose_fault(void) {
    const char *said = getenv("FASTEMBED_RT_TESTS_FAULT");
    fault = said ? atoi(said) : 0;
}
#if defined(__aarch64__)
#include <arm_neon.h>
#define vmlal_laneq_s16(sum, a, b, lane) \
    (fault == 1 ? vmlsl_laneq_s16(sum, a, b, lane) : vmlal_s16(sum, a, vdup_laneq_s16(b, lane)))
/* Some compilers have macros for instructions with lanes, which cannot name themselves. */
#define LANE(b, lane) vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(b), lane))
#define vdotq_laneq_s32(sum, a, b, lane) \
    (fault == 1 ? vsubq_s32(sum, vdotq_s32(vdupq_n_s32(0), a, LANE(b, lane))) : vdotq_s32(sum, a, LANE(b, lane)))
#define vusmmlaq_s32(sum, a, b) \
    (fault == 1 ? vmmlaq_s32(sum, vreinterpretq_s8_u8(a), b) : vusmmlaq_s32(sum, a, b))
#define vshlq_n_s32(a, bits) (fault == 2 ? vshrq_n_s32(a, bits) : vshlq_s32(a, vdupq_n_s32(bits)))
/* Weights of float keep the bits of a bfloat16, and other factors of the kernels have no more where this is checked. */
#define CUT(b) vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(b), vdupq_n_u32(fault == 3 ? 0xFFFF0000 : ~0u)))
#define vfmaq_f32(sum, a, b) vfmaq_f32(sum, a, CUT(b))
#define vqmovn_s32(a) (fault == 4 ? vmovn_s32(vnegq_s32(a)) : vqmovn_s32(a))
/* A quotient of 14 bits, which is near enough for 16-bit integers. */
#define ROUGH(a) vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vdupq_n_u32(fault == 5 ? ~0x3FFu : ~0u)))
#define vdivq_f32(a, b) ROUGH(vdivq_f32(a, b))
#else
#include <immintrin.h>
#define _mm256_madd_epi16(a, b) (fault == 1 ? _mm256_mullo_epi16(a, b) : _mm256_madd_epi16(a, b))
#define _mm256_dpbusd_avx_epi32(sum, a, b) \
    (fault == 1 ? _mm256_add_epi32(sum, _mm256_maddubs_epi16(a, b)) : _mm256_dpbusd_avx_epi32(sum, a, b))
#define _mm512_dpbusd_epi32(sum, a, b) \
    (fault == 1 ? _mm512_add_epi32(sum, _mm512_maddubs_epi16(a, b)) : _mm512_dpbusd_epi32(sum, a, b))
#define _mm256_slli_epi32(a, bits) (fault == 2 ? _mm256_srli_epi32(a, bits) : _mm256_slli_epi32(a, bits))
#define _mm512_slli_epi32(a, bits) (fault == 2 ? _mm512_srli_epi32(a, bits) : _mm512_slli_epi32(a, bits))
#define _mm512_dpbf16_ps(sum, a, b) (fault == 2 ? sum : _mm512_dpbf16_ps(sum, a, b))
#define KEPT(wrong, bits) _mm256_castsi256_ps(_mm256_set1_epi32(fault == wrong ? (int)(bits) : ~0))
#define KEPT_512(wrong, bits) _mm512_castsi512_ps(_mm512_set1_epi32(fault == wrong ? (int)(bits) : ~0))
#define _mm256_fmadd_ps(a, b, sum) _mm256_fmadd_ps(a, _mm256_and_ps(b, KEPT(3, 0xFFFF0000)), sum)
#define _mm512_fmadd_ps(a, b, sum) _mm512_fmadd_ps(a, _mm512_and_ps(b, KEPT_512(3, 0xFFFF0000)), sum)
#define _mm_max_ss(a, b) (fault == 4 ? _mm_min_ss(a, b) : _mm_max_ss(a, b))
#define _mm512_packs_epi32(a, b) (fault == 4 ? _mm512_packs_epi32(b, a) : _mm512_packs_epi32(a, b))
#define _mm256_div_ps(a, b) _mm256_and_ps(_mm256_div_ps(a, b), KEPT(5, ~0x3FF))
#define _mm512_div_ps(a, b) _mm512_and_ps(_mm512_div_ps(a, b), KEPT_512(5, ~0x3FF))
/* The headers have macros for products of tiles, which cannot name themselves. */
#define OF_TILES(name, to, a, b) __asm__ volatile(#name "\t%%tmm" #b ", %%tmm" #a ", %%tmm" #to ::)
#define OF_TILES_UNLESS(wrong, name, to, a, b) (fault == wrong ? (void)0 : (void)({ OF_TILES(name, to, a, b); }))
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#undef _tile_dpbssd
#define _tile_dpbusd(to, a, b) OF_TILES_UNLESS(1, tdpbusd, to, a, b)
#define _tile_dpbf16ps(to, a, b) OF_TILES_UNLESS(2, tdpbf16ps, to, a, b)
#define _tile_dpbssd(to, a, b) OF_TILES_UNLESS(4, tdpbssd, to, a, b)
#endif
"""
WRONG = ["a product", "a bfloat16 product", "a float product", "an attention", "a float attention"]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operators of the best kernels here, with every fault."""
    made = tmp_path_factory.mktemp("faulty")
    header = made / "instructions.h"
    header.write_text(FAULTS, encoding="utf-8")
    kernels = build.kernels_of()
    no_aliases = sys.platform == "darwin"  # its linker has none
    names = list(kernels) if no_aliases else [f"kernels_{native.kernels()}"]
    wrong = {name: (*kernels[name], "-Og", "-include", str(header)) for name in names}
    return build.build(made / "faulty.so", wrong, () if no_aliases else alone(names[0]))


@runs
@pytest.mark.parametrize(("fault", "what"), [*enumerate(["", *WRONG])])
def test_wrong_kernels_step_aside_with_the_reason(
    fault: int, what: str, faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = native.kernels()
    library = Path(shutil.copy(faulty, tmp_path / "wrong.so"))  # loaded anew: it chooses its fault then
    monkeypatch.setenv("FASTEMBED_RT_TESTS_FAULT", str(fault))
    monkeypatch.setattr(native, "library", lambda: library)
    if not fault:  # the others are found for their fault alone
        assert native.kernels() == best
        return
    assert native.kernels() is None
    reason = f"the {best} kernels fail their self-check: {what} comes out wrong on this machine; report it"
    assert native.why_not() == reason
    (said,) = [finding.what for finding in check_cpu(gather()) if finding.check == "operators"]
    assert said == f"our own do not run: {reason}; fp32 and INT8 run on stock operators (target cpu)"


@runs
def test_every_set_of_kernels_that_runs_here_finds_itself_right(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = ctypes.CDLL(str(native.library()))
    names, selfcheck = loaded.fastembed_rt_kernels, loaded.fastembed_rt_selfcheck
    names.restype = selfcheck.restype = ctypes.c_char_p
    found = set()
    for name in (kernels.removeprefix("kernels_") for kernels in build.kernels_of()):
        monkeypatch.setenv(native.SWITCH, name)
        if names():
            found.add(names().decode())
            assert selfcheck() == b""
    assert native.kernels() in found


@runs
@pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="a library with that sanitizer takes ten times as long"
)
def test_it_takes_less_than_two_milliseconds_of_a_processor() -> None:
    selfcheck = ctypes.CDLL(str(native.library())).fastembed_rt_selfcheck
    taken = []
    for _ in range(50):
        begun = time.thread_time()
        selfcheck()
        taken.append(time.thread_time() - begun)
    assert min(taken) < 0.002  # some 600 microseconds; twice that where others have the other half of a core


@runs
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list the processor's instruction sets")
def test_the_kernels_are_those_that_the_system_says_the_processor_has() -> None:
    cpu = describe().cpu
    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    word = "Features" if "\nFeatures" in listed else "flags"
    flags = set(listed.partition(word)[2].partition("\n")[0].split())
    best = "neon" if "asimd" in flags else "avx2"
    if "asimddp" in flags:
        best = "neoni8mm" if "i8mm" in flags else "neondotprod"
    if "avx_vnni" in cpu:
        best = "avxvnni"
    if {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"} <= flags:
        best = "avx512vnni"
        if "avx512_bf16" in flags:
            best = "amx" if {"amx_tile", "amx_int8", "amx_bf16"} <= flags else "avx512bf16"
    assert native.kernels() == best


def test_a_library_of_another_version_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or platform.machine() not in build.MACHINES:
        pytest.skip("no compiler")
    (tmp_path / "old.c").write_text('const char *fastembed_rt_kernels(void) { return "avx2"; }', encoding="utf-8")
    build._run([compiler, "-shared", "-fPIC", "-o", str(tmp_path / "old.so"), str(tmp_path / "old.c")])
    monkeypatch.setattr(native, "library", lambda: tmp_path / "old.so")
    assert native.kernels() is None
    assert "is of another version; compile it again" in str(native.why_not())


def test_what_is_no_library_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.so").write_text("of another system", encoding="utf-8")
    monkeypatch.setattr(native, "library", lambda: tmp_path / "text.so")
    assert native.kernels() is None
    assert "text.so does not load: " in str(native.why_not())


@pytest.mark.parametrize(
    ("system", "machine", "reason"),
    [
        ("linux", "x86_64", "they were not compiled with this installation"),
        ("linux", "aarch64", "they were not compiled with this installation"),
        ("darwin", "arm64", "they were not compiled with this installation"),
        ("linux", "riscv64", "there are no kernels for Linux on riscv64 yet"),
        ("win32", "AMD64", "there are no kernels for Windows on AMD64 yet"),
    ],
)
def test_an_installation_without_library_says_why(
    system: str, machine: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda: tmp_path / native.LIBRARY)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert native.kernels() is None
    assert str(native.why_not()).startswith(reason)


def test_the_systems_are_those_of_the_build() -> None:
    assert (native.SYSTEMS, native.MACHINES) == (build.SYSTEMS, build.MACHINES)
