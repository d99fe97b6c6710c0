"""Prints the table of docs/tokenizers.md: `python tests/tokenizer_survey.py`, half an hour; `--quick`: a tenth of it.

FASTEMBED_RT_DATA names the data, FASTEMBED_RT_REAL a folder of real checkpoints. transformers' class is named beside
each tokenizer.json; "as it is" counts the texts that would have other ids if the class had been passed over.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tokenizer_files import CASES, REFUSED, Case, compare, read, real_cases
from tokenizer_texts import all_texts

from fastembed_rt_export import tokenizer_classes


def made_by(directory: Path) -> str:
    """The class that transformers takes, and what it makes of the file."""
    settings, config = read(directory / "tokenizer_config.json"), read(directory / "config.json")
    text = (directory / "tokenizer.json").read_text(encoding="utf-8")
    name = tokenizer_classes.find(settings, config, byte_level='"ByteLevel"' in text)
    return f"`{name}Tokenizer`" if name else "the file as it is"


def row(case: Case, texts: list[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        directory = case.at(Path(folder))
        found = compare(directory, texts, alone=True)
        differ = f"**{len(found.different)} differ**" if found.different else "all equal"
        cells = (
            case.title,
            case.source,
            made_by(directory),
            f"{found.texts:,}",
            found.refused or differ,
            f"{found.alone:,}",
        )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    texts = all_texts()[:: 10 if "--quick" in sys.argv else 1]
    print("| tokenizer of | tokenizer.json | class in transformers | texts | ids | as it is |")
    print("| --- | --- | --- | ---: | --- | ---: |")
    for case in [*real_cases(), *CASES]:
        print(row(case, texts), flush=True)
    print(f"\nRefused by name: {', '.join(f'{name}Tokenizer' for name in REFUSED.values())} and others.")


if __name__ == "__main__":
    main()
