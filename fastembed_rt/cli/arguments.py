"""Arguments that several commands take, and the types of their values."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Iterable
from pathlib import Path

from ..precisions import ALL, listed, unknown
from .readers import READERS


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare MODEL and the options that say where it comes from and which variant loads."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="model directory or checkpoint, here or on the hub; a checkpoint is exported once (see cache)",
    )
    add_variant_options(parser)


def add_variant_options(parser: argparse.ArgumentParser) -> None:
    """The options of those that say where a model comes from and which variant loads."""
    parser.add_argument(
        "--provider",
        default="cpu",
        help="execution provider: cpu, cuda, tensorrt, openvino, coreml, directml; auto takes cuda where it runs, "
        "else cpu (default: cpu)",
    )
    parser.add_argument(
        "--precision", type=precision, help=f"{listed(ALL, 'or')} (default: as the model directory says)"
    )
    add_hub_options(parser)


def add_input_arguments(parser: argparse.ArgumentParser, formats: Iterable[str] = READERS) -> None:
    """Declare INPUT and the options that say how its texts are found; readers.py looks at them."""
    parser.add_argument(
        "inputs", nargs="*", type=place, default=None, metavar="INPUT", help="files in order; - or none: standard input"
    )
    parser.add_argument("--input-format", choices=list(formats), help="format of every input")
    parser.add_argument("--column", type=text, help="key or column with the text (default: text)")
    parser.add_argument("--id-column", type=text, help="key or column with an id to carry into the output")


def add_hub_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that may ask the hub."""
    parser.add_argument("--revision", help="branch, tag or commit on the hub")
    parser.add_argument("--token", help="hub token (default: the one of `hf auth login`, or HF_TOKEN)")
    parser.add_argument("--cache-dir", type=place, help="where hub files are kept")
    parser.add_argument("--local-files-only", action="store_true", help="do not ask the hub")


def place(value: str) -> str:
    """The name of a file, a directory or a URL, for argparse: an empty one would be the working directory."""
    if not value.strip():
        raise argparse.ArgumentTypeError(f"the name {value!r} is empty; name a file or directory")
    return value


def path(value: str) -> Path:
    """`place` as a path, for argparse."""
    return Path(place(value))


def min_cosine(value: str) -> float:
    """A cosine, for argparse."""
    try:
        cosine = float(value)
    except ValueError:
        cosine = math.nan
    if not -1 <= cosine <= 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a cosine, a number from -1 to 1")
    return cosine


def precision(value: str) -> str:
    """A precision that exists, for argparse; whether the directory has it is found out later."""
    if reason := unknown(value):
        raise argparse.ArgumentTypeError(reason)
    return value


def device_ids(value: str) -> list[int]:
    """Numbers joined by commas, for argparse."""
    if not all(part.isdecimal() for part in value.split(",")):
        raise argparse.ArgumentTypeError(f"{value!r} is not numbers joined by commas, such as 0,1")
    return [int(part) for part in value.split(",")]


def positive(value: str) -> int:
    """An integer of at least 1, for argparse."""
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a positive integer")
    return int(value)


def port(value: str) -> int:
    """A port of TCP, for argparse; 0 is any that is free."""
    from ..server.listening import MOST_PORT  # only here: few commands listen

    if not value.isdecimal() or int(value) > MOST_PORT:
        raise argparse.ArgumentTypeError(f"{value!r} is not a port, a number from 0 to {MOST_PORT}")
    return int(value)


def text(value: str) -> str:
    """A text for a model, for argparse: UTF-8 as it was typed, whatever the locale's encoding is."""
    if value.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in value):
        return value
    try:  # bytes that the locale's encoding does not know came as halves of surrogate pairs
        return os.fsencode(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(f"{value!r} is neither UTF-8 nor of the locale's encoding") from error
