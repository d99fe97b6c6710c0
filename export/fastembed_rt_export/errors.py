"""The errors of the export, as the runtime's command line knows them, and other people's turned into them."""

from collections.abc import Iterator
from contextlib import contextmanager

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
]

# What goes wrong in other people's code; not what a user's signal handler raises, nor a lack of memory.
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
TOOLS = ("torch", "onnx", "onnxruntime")  # packages with errors of their own


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn an error of other people's code into one of ours, with the first line of what it says.

    Raises:
        UnsupportedCheckpointError: `what`, and the tracer's first line.
    """
    try:
        yield
    except (FastembedRtError, TimeoutError):
        raise
    except Exception as error:
        if not isinstance(error, FAULTS) and type(error).__module__.partition(".")[0] not in TOOLS:
            raise
        raise UnsupportedCheckpointError(f"{what}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """Class and first line of an error's text, which may be empty."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__
