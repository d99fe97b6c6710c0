"""The errors of the export, as the runtime's command line knows them, and other people's turned into them."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastembed_rt import errors
from fastembed_rt.errors import (
    CheckpointError,
    FastembedRtError,
    InvalidInputError,
    MissingDependencyError,
    OutputExistsError,
    ParityError,
    UnsupportedCheckpointError,
)

__all__ = [
    "CheckpointError",
    "InvalidInputError",
    "MissingDependencyError",
    "OutputExistsError",
    "ParityError",
    "UnsupportedCheckpointError",
    "explained",
    "first_line",
    "theirs",
]

# What goes wrong in other people's code; not what a user's signal handler raises, nor a lack of memory.
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
# Packages with errors of their own.
TOOLS = ("torch", "onnx", "onnxruntime", "jinja2", "pickle", "_pickle", "struct", "zipfile")


def theirs(error: Exception) -> bool:
    """Whether an error is one of other people's code; tokenizers raises plain ones. Not a caller's time limit."""
    tool = type(error).__module__.partition(".")[0] in TOOLS
    return tool or type(error) is Exception or (isinstance(error, FAULTS) and not isinstance(error, TimeoutError))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of other people's code into one of ours, with the first line of what it says.

    Raises:
        UnsupportedCheckpointError: `what`, and the tracer's first line.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, FastembedRtError) or not theirs(error):
            raise
        raise UnsupportedCheckpointError(f"{what}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Class and first line of an error's text, which may be empty."""
    line, name = errors.first_line(error), type(error).__name__
    return name if line == name else f"{name}: {line}"
