"""What a shared library is for and asks of its system, read from its bytes: ELF (Linux) and Mach-O (macOS), 64 bits."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

ELF_MACHINES = {62: "x86_64", 183: "aarch64"}
MACH_PROCESSORS = {0x01000007: "x86_64", 0x0100000C: "arm64"}
# Kinds of sections, entries and commands, as the formats number them.
DYNAMIC, DYNAMIC_SYMBOLS, VERSIONS_NEEDED = 6, 11, 0x6FFFFFFE
DT_NEEDED, DT_FLAGS_1, DF_1_NODELETE = 1, 0x6FFFFFFB, 8
PT_GNU_STACK, EXECUTABLE = 0x6474E551, 1
LC_LOAD_DYLIB, LC_VERSION_MIN_MACOSX, LC_BUILD_VERSION = 0xC, 0x24, 0x32


@dataclass(frozen=True, kw_only=True)
class Library:
    """What was read."""

    form: str  # elf, mach-o
    machine: str
    needed: frozenset[str]  # other libraries
    versions: frozenset[str] = frozenset()  # of their symbols (ELF), such as GLIBC_2.17
    exported: frozenset[str] = frozenset()  # (ELF)
    kept: bool = True  # never unloaded (ELF)
    executable_stack: bool = False
    system: tuple[int, int] = (0, 0)  # oldest one that it is for (Mach-O)


def read(data: bytes) -> Library:
    """Read a library.

    Raises:
        ValueError: neither ELF nor Mach-O of 64 bits, least significant byte first.
    """
    if data[:6] == b"\x7fELF\x02\x01":
        return _read_elf(data)
    if data[:4] == b"\xcf\xfa\xed\xfe":
        return _read_mach(data)
    raise ValueError(f"neither ELF nor Mach-O of 64 bits: {data[:6]!r}")


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _read_elf(data: bytes) -> Library:
    (machine,) = struct.unpack_from("<H", data, 18)
    programs, sections = struct.unpack_from("<QQ", data, 32)
    program_size, program_count, section_size, section_count = struct.unpack_from("<4H", data, 54)
    rows = [struct.unpack_from("<IIQQQQIIQQ", data, sections + k * section_size) for k in range(section_count)]
    needed, versions, exported, kept = set(), set(), set(), False
    for _, kind, _, _, start, size, link, count, _, _ in rows:
        names = rows[link][4]
        if kind == DYNAMIC:
            for tag, value in struct.iter_unpack("<qQ", data[start : start + size]):
                needed |= {_text(data, names + value)} if tag == DT_NEEDED else set()
                kept = kept or (tag == DT_FLAGS_1 and bool(value & DF_1_NODELETE))
        elif kind == VERSIONS_NEEDED:
            versions |= set(_elf_versions(data, start, count, names))
        elif kind == DYNAMIC_SYMBOLS:
            for name, info, _, defined, _, _ in struct.iter_unpack("<IBBHQQ", data[start : start + size]):
                exported |= {_text(data, names + name)} if defined and info >> 4 else set()
    flags = [struct.unpack_from("<II", data, programs + k * program_size) for k in range(program_count)]
    return Library(
        form="elf",
        machine=ELF_MACHINES.get(machine, str(machine)),
        needed=frozenset(needed),
        versions=frozenset(versions),
        exported=frozenset(exported),
        kept=kept,
        # Without the entry a loader takes an executable one.
        executable_stack=not any(kind == PT_GNU_STACK and not flag & EXECUTABLE for kind, flag in flags),
    )


def _elf_versions(data: bytes, at: int, files: int, names: int) -> Iterator[str]:
    for _ in range(files):
        _, count, _, first, following = struct.unpack_from("<HHIII", data, at)
        entry = at + first
        for _ in range(count):
            _, _, _, name, step = struct.unpack_from("<IHHII", data, entry)
            yield _text(data, names + name)
            entry += step
        at += following


def _read_mach(data: bytes) -> Library:
    processor, _, _, commands = struct.unpack_from("<4I", data, 4)
    needed, system, at = set(), (0, 0), 32
    for _ in range(commands):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == LC_LOAD_DYLIB:
            needed.add(_text(data, at + struct.unpack_from("<I", data, at + 8)[0]))
        elif kind in (LC_BUILD_VERSION, LC_VERSION_MIN_MACOSX):
            (version,) = struct.unpack_from("<I", data, at + (12 if kind == LC_BUILD_VERSION else 8))
            system = (version >> 16, version >> 8 & 0xFF)
        at += size
    return Library(
        form="mach-o",
        machine=MACH_PROCESSORS.get(processor, hex(processor)),
        needed=frozenset(needed),
        system=system,
    )
