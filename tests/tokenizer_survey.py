"""Prints the table of docs/tokenizers.md: `python tests/tokenizer_survey.py`, 15 minutes; `--quick`: a tenth.

FASTEMBED_RT_DATA names the data, FASTEMBED_RT_REAL a folder of real checkpoints. One row a class of transformers; "as
it is" counts the texts that would have other ids if the class had been passed over. stderr has each tokenizer.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tokenizer_cases import CASES, REFUSED, real_cases
from tokenizer_files import Compared, compare, read
from tokenizer_texts import all_texts

from fastembed_rt_export.tokenizer import class_names


def made_by(directory: Path) -> str:
    """The class that transformers takes, and what it makes of the file."""
    settings, config = read(directory / "tokenizer_config.json"), read(directory / "config.json")
    text = (directory / "tokenizer.json").read_text(encoding="utf-8")
    name = class_names.find(settings, config, byte_level='"ByteLevel"' in text)
    return f"`{name}Tokenizer`" if name else "none: the file as it is"


def row(name: str, found: list[tuple[str, str, Compared]]) -> str:
    titles = "; ".join(dict.fromkeys(title for title, *_ in found))
    sources = "; ".join(dict.fromkeys(source for _, source, _ in found))
    compared = [one for *_, one in found]
    bad = sum(len(one.different) for one in compared) + sum(bool(one.refused) for one in compared)
    alone = sorted({one.alone for one in compared})
    cells = (name, titles, sources, f"{len(found)} x {compared[0].texts:,}", f"**{bad} differ**" if bad else "equal")
    return f"| {' | '.join(cells)} | {' to '.join(f'{count:,}' for count in dict.fromkeys((alone[0], alone[-1])))} |"


def main() -> None:
    texts = all_texts()[:: 10 if "--quick" in sys.argv else 1]
    found: dict[str, list[tuple[str, str, Compared]]] = defaultdict(list)
    for case in [*real_cases(), *CASES]:
        with tempfile.TemporaryDirectory() as folder:
            directory = case.at(Path(folder))
            compared = compare(directory, texts, alone=True)
            found[made_by(directory)].append((case.title, case.source, compared))
        told = compared.refused or f"{len(compared.different)} differ {list(compared.different[:3])}"
        print(f"{case.title}, {case.source}: {told}, {compared.alone} as it is", file=sys.stderr, flush=True)
    print("| class of transformers | tokenizers of | tokenizer.json from | texts | ids | as it is |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, several in found.items():
        print(row(name, several))
    print(f"\nRefused by name: {', '.join(f'{name}Tokenizer' for name in REFUSED.values())} and others.")


if __name__ == "__main__":
    main()
