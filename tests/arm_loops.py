"""Inner loops of compiled Arm kernels, read from an object file (ELF): their instructions, and how many multiply."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Bits that are the same in every instruction of a kind (a mask and their values), and its products that are added up.
MULTIPLIES = {
    "usmmla": (0xFFE0FC00, 0x4E80AC00, 32),
    "sdot": (0xFFC0F400, 0x4F80E000, 16),  # by element
    "smlal": (0xBFC0F400, 0x0F402000, 4),  # by element of int16; smlal2 too
}
# Whole registers to and from memory, and their base.
MOVES = {"str": (0xFFC00000, 0x3D800000), "stp": (0xFFC00000, 0xAD000000), "ldr": (0xFFC00000, 0x3DC00000)}
STACK = 31
SYMBOLS, FUNCTION = 2, 2


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The loop of a function with the most multiplications."""

    instructions: int
    multiplies: dict[str, int]
    spills: int  # registers stored to the stack and loaded again

    @property
    def macs(self) -> int:
        """Products added up in a turn."""
        return sum(MULTIPLIES[name][2] * count for name, count in self.multiplies.items())


def functions(data: bytes) -> Iterator[tuple[str, list[int]]]:
    """The functions of an object file: names and instructions."""
    (sections,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    rows = [struct.unpack_from("<IIQQQQIIQQ", data, sections + k * size) for k in range(count)]
    for _, kind, _, _, start, length, link, _, _, _ in rows:
        if kind != SYMBOLS:
            continue
        names = rows[link][4]
        for name, info, _, section, value, extent in struct.iter_unpack("<IBBHQQ", data[start : start + length]):
            if info & 15 == FUNCTION and 0 < section < count:
                at, end = rows[section][4] + value, data.index(b"\0", names + name)
                yield data[names + name : end].decode(), list(struct.unpack_from(f"<{extent // 4}I", data, at))


def loop(code: list[int]) -> Loop:
    """The loop with the most products: from where a conditional branch goes back to, up to it."""
    return max(_loops(code), key=lambda found: found.macs)


def _loops(code: list[int]) -> Iterator[Loop]:
    for at, word in enumerate(code):
        if word & 0xFF000010 == 0x54000000 and word >> 23 & 1:  # b.cond with a negative distance
            body = code[at + (word >> 5 & 0x7FFFF) - (1 << 19) : at + 1]
            counts = {name: sum(w & mask == bits for w in body) for name, (mask, bits, _) in MULTIPLIES.items()}
            yield Loop(
                instructions=len(body),
                multiplies={name: count for name, count in counts.items() if count},
                spills=sum(w & mask == bits and w >> 5 & 31 == STACK for w in body for mask, bits in MOVES.values()),
            )
