"""Errors that users meet: each says what came, what was possible, and what to do.

Every class carries the exit code of the command line; the message is one line.
"""

from __future__ import annotations

LIBRARIES = ("fastembed_rt", "onnxruntime", "tokenizers", "numpy")  # whose own errors are about what they were given


class FastembedRtError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class InvalidInputError(FastembedRtError, ValueError):
    """A text, option or file given by the caller cannot be used."""

    exit_code = 2


class InvalidTypeError(InvalidInputError, TypeError):
    """An input of the wrong type, such as bytes where text was meant."""


class TextTooLongError(InvalidInputError):
    """A text is longer than max_length and the truncation policy is "error"."""


class UnknownTokenError(InvalidInputError):
    """A text has a token that the model does not know, though its tokenizer does."""


class UnknownPromptError(InvalidInputError):
    """A prompt was named that the model does not have; `fact` says which without saying what to pass."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"{fact}; pass prompt=TEXT for another")
        self.fact = fact

    def __reduce__(self) -> tuple[type[UnknownPromptError], tuple[str]]:
        return type(self), (self.fact,)


class OutputExistsError(InvalidInputError):
    """The output is there already and overwriting was not asked for."""


class FixedError(InvalidInputError, AttributeError):
    """An attribute that says how a model was loaded was assigned to."""


class UnknownSettingError(InvalidInputError, AttributeError):
    """A model has no setting of the name that was assigned to."""


class ModelNotFoundError(FastembedRtError):
    """No model directory, checkpoint or hub repository under that name."""

    exit_code = 3


class ModelFormatError(FastembedRtError):
    """A model directory that this version cannot read."""

    exit_code = 3


class LacksGraphError(ModelFormatError):
    """A call wants vectors that only another export of the checkpoint gives; the message names no place."""


class IntegrityError(ModelFormatError):
    """A file of a model directory is missing or is not what the manifest says."""


class CheckpointError(FastembedRtError):
    """A checkpoint that is damaged, incomplete or contradicts itself."""

    exit_code = 3


class UnsupportedCheckpointError(CheckpointError):
    """A sound checkpoint with something that the export does not know how to build."""


class WorkerError(FastembedRtError):
    """A process that worked for a model ended before its work was done."""


class ParityError(FastembedRtError):
    """The exported vectors differ from the reference by more than the stated bound."""

    exit_code = 4


class MissingDependencyError(FastembedRtError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    exit_code = 5


class ProviderUnavailableError(FastembedRtError):
    """The execution provider asked for does not run here; there is no silent fallback."""

    exit_code = 5


def from_outside(error: BaseException) -> bool:
    """Whether an exception came in the middle of the work and not from it: Ctrl-C, or what a signal handler raises.

    Such a one belongs to the caller; it says nothing of the model. To be asked where it is caught: its way up to there
    leads through code of neither this package nor the libraries beneath it. What another thread raises in this one
    (PyThreadState_SetAsyncExc) comes from no code at all, and is known by its kind, which is the caller's own.
    """
    kind = type(error)
    if not isinstance(error, Exception) or issubclass(kind, TimeoutError):
        return True
    if kind.__module__.partition(".")[0] not in (*LIBRARIES, "builtins"):
        return True
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in LIBRARIES:
            return True
        trace = trace.tb_next
    return False


def first_line(error: BaseException, letters: int = 300) -> str:
    """The first line of an error's message, or the name of its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:letters] if lines else type(error).__name__
