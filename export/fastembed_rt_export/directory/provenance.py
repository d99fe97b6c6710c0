"""What a checkpoint's card says of its license and languages: the metadata in front of its README.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CARD = "README.md"


def license_and_languages(root: Path, notes: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """Both as the card has them, None and () where it does not. `notes` gets one where it is damaged."""
    path = root / CARD
    if not path.is_file():
        return None, ()
    from huggingface_hub.repocard import metadata_load  # only here: a command that exports nothing must not wait for it

    try:
        said: Any = metadata_load(path)
    except Exception as error:  # noqa: BLE001  of whatever reads YAML: a card decides nothing
        notes.append(f"the metadata of {CARD} cannot be read ({type(error).__name__}): no license is named")
        return None, ()
    if not isinstance(said, dict):
        return None, ()
    named = said.get("license")
    named = named[0] if isinstance(named, list) and named else named
    return named if isinstance(named, str) else None, _languages(said.get("language"))


def _languages(said: object) -> tuple[str, ...]:
    several = said if isinstance(said, Sequence) and not isinstance(said, str) else [said]
    # YAML takes Norwegian's code for a truth value.
    spelled = ["no" if one is False else one for one in several]
    return tuple(one for one in spelled if isinstance(one, str) and one)
