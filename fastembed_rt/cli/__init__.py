"""The command line: parses, dispatches, and turns every failure into one line and an exit code.

What a command does lives in its own module, and none of them imports onnxruntime, tokenizers, torch or onnx
before it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from .. import __version__
from ..errors import FastembedRtError, InvalidInputError, UnknownPromptError

PROG = "fastembed-rt"
COMMANDS = (
    "export",
    "embed",
    "rerank",
    "similar",
    "index",
    "search",
    "verify",
    "info",
    "bench",
    "serve",
    "mcp",
    "push",
    "cache",
    "doctor",
)  # modules of this package, in the order of --help

EXIT_USAGE = InvalidInputError.exit_code
INTERRUPTED = 130  # 128 + SIGINT, ...: what a shell reports for a tool that the signal ended
HANGUP = 129  # the terminal is gone
TERMINATED = 143
BROKEN_PIPE = 141
DEBUG_HELP = "on failure, print the traceback too"


class _CommandParser(argparse.ArgumentParser):
    """Takes options and positionals in any order: plain argparse refuses `embed MODEL -o FILE INPUT`."""

    _mixing = False
    _brief = ""  # the usage without options

    def __init__(self, *args: Any, **options: Any) -> None:
        # An abbreviation that is clear today is another option's tomorrow.
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self._mixing:  # parse_known_intermixed_args calls back, once for options and once for positionals
            return super().parse_known_args(args, namespace)
        brief = self.formatter_class(prog=f"{self.prog} [options]")
        brief.add_usage(None, self._get_positional_actions(), [])
        self._brief = brief.format_help()  # now: intermixed parsing hides positionals for a while
        self._mixing = True
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
        if unknown:  # said here, with the command's own usage; argparse leaves it to the program's parser
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Exit with 2. The usage is short here: thirty lines of options would stand before the one that is wrong."""
        self._print_message(f"{self._brief}(all options: {self.prog} --help)\n", sys.stderr)
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}\n")


def build_parser(commands: Sequence[str] | None = None) -> argparse.ArgumentParser:
    """The parser with every command, or these; `run(args) -> int` is the command chosen."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Export fine-tuned sentence encoders and rerankers to ONNX, and turn texts into vectors and scores "
        "without torch.",
        epilog="exit codes: 0 done, 1 failure, 2 wrong usage or input, 3 model not found or damaged, "
        "4 vectors differ from the reference (of export: what differs is left out), 5 package or provider missing, "
        "130 interrupted",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    parser.add_argument("--debug", action="store_true", help=DEBUG_HELP)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for name in COMMANDS if commands is None else commands:
        importlib.import_module(f".{name}", __name__).add_parser(subparsers)
    for command in subparsers.choices.values():
        # SUPPRESS: without it the command's own default would overwrite a --debug given before the command.
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=DEBUG_HELP)
    return parser


def _followed() -> None:
    """Never called: tools that build programs put into them what is imported somewhere, and follow no names."""
    from . import (  # noqa: F401
        bench,
        cache,
        doctor,
        embed,
        export,
        index,
        info,
        mcp,
        push,
        rerank,
        search,
        serve,
        similar,
        verify,
    )


def _parser_for(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser with the command that is asked for alone: a command does not wait for what others import."""
    word = _command(argv)
    return build_parser([word] if word in COMMANDS else None)


def _command(argv: Sequence[str]) -> str | None:
    return next((word for word in argv if not word.startswith("-")), None)  # no option before it takes a value


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command (default: of `sys.argv`) and return its exit code; raises nothing."""
    argv = sys.argv[1:] if argv is None else argv
    if _command(argv) == "serve":
        from ..server import hangups

        hangups.hold()  # first of all: what reloads a server ends none that has not begun
    with _standard_streams():
        return _run(argv)


def _run(argv: Sequence[str]) -> int:
    debug, args = False, argparse.Namespace()
    with _noted_signals() as came:
        try:
            try:
                args = _parser_for(argv).parse_args(argv)
            except SystemExit as done:  # argparse has printed the help, the version or what is wrong
                code = done.code if isinstance(done.code, int) else 0
            else:
                debug = args.debug
                code = args.run(args)
            if sys.stdout is not None:  # None: started with standard output closed
                sys.stdout.flush()  # here, where a full disk or a closed pipe still gets its exit code
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort: a bug still ends in one line
            # Modules in C that a signal interrupts at their import raise something else, such as an ImportError.
            code = _failed(came[0] if came else error, args, getattr(error, "__notes__", ()), debug=debug)
    return code


def _failed(error: BaseException, args: argparse.Namespace, notes: Iterable[str], *, debug: bool) -> int:
    """Say in one line what went wrong, with the notes on errors of ours; the exit code for it."""
    if isinstance(error, Terminated):
        return _fail("; ".join([error.what, *notes]), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _fail("; ".join(["interrupted", *notes]), INTERRUPTED)
    if isinstance(error, FastembedRtError):
        return _fail("; ".join([_said(error, args), *notes]), error.exit_code, debug=debug)
    if isinstance(error, OSError):
        _discard(sys.stdout)
        return BROKEN_PIPE if isinstance(error, BrokenPipeError) else _fail(_describe(error), 1, debug=debug)
    hint = "" if debug else " (run again with --debug for the traceback)"
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return _fail(message + hint, 1, debug=debug)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: unfinished output is removed as after Ctrl-C."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.what = what
        self.exit_code = exit_code


# Signals that end a program which does not care; those ignored, as nohup has it, stay so.
ENDING = {"SIGTERM": ("terminated", TERMINATED), "SIGHUP": ("the terminal is gone", HANGUP)}  # Windows lacks the latter


@contextlib.contextmanager
def _noted_signals() -> Iterator[list[KeyboardInterrupt]]:
    """Have signals raise, so that what is unfinished is removed; the list gets what they raised."""
    came: list[KeyboardInterrupt] = []

    def interrupt(_number: int, _frame: object) -> None:
        came.append(KeyboardInterrupt())
        raise came[-1]

    def terminate(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait for what the first has begun
        came.append(Terminated(*ENDING[signal.Signals(number).name]))
        raise came[-1]

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    for number in (getattr(signal, name) for name in ENDING if hasattr(signal, name)):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield came
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _standard_streams() -> Iterator[None]:
    """Standard error that can be written to, whatever the program was started with (`2>&-`, pythonw).

    A closed descriptor is opened on nothing: the next file opened would take its number, and what a library prints
    would end up in there. Standard output stays closed, so that a command can refuse to write to it.
    """
    if os.name == "posix":
        for descriptor in (0, 1, 2):
            try:
                os.fstat(descriptor)
            except OSError:
                opened = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
                os.set_inheritable(opened, True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to fail
    if sys.stderr is not None and not sys.stderr.closed:
        yield
        return
    with contextlib.ExitStack() as stack:
        # Not only for what is printed here: print(file=None) would go to standard output.
        nothing = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
        stack.enter_context(contextlib.redirect_stderr(nothing))
        yield


def _said(error: FastembedRtError, args: argparse.Namespace) -> str:
    """An error in the words of the command line, whose options have other names than arguments in Python."""
    if isinstance(error, UnknownPromptError):
        for name in ("prompt", "default_prompt"):
            if hasattr(args, name):
                return f"{error.fact}; pass --{name.replace('_', '-')} TEXT for another"
    return str(error)


def _fail(message: str, code: int, *, debug: bool = False) -> int:
    try:
        if debug:
            traceback.print_exc()
        print(f"{PROG}: error: {' '.join(message.splitlines())}", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # a pipe that nobody reads, a full disk: the code is all that can still be told
        _discard(sys.stderr)
    return code


def _describe(error: OSError) -> str:
    if error.strerror is None:
        return str(error) or type(error).__name__
    return f"{error.strerror}: {error.filename}" if error.filename is not None else error.strerror


def _discard(stream: TextIO | None) -> None:
    """Point a standard stream at nothing: what its buffer still holds would fail again when Python exits."""
    if stream is None:
        return
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # closed, or a stand-in without a descriptor
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
