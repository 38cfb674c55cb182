"""The command `picme`: a table of verbs, each module imported when its verb is called."""

import argparse
import codecs
import contextlib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

from picme_rt import __version__
from picme_rt.errors import PicmeError


class Verb(NamedTuple):
    """One verb of the command line.

    Attributes:
        module: Has `add_arguments(parser)` and `run(arguments)`.
        help: One line.
        extra: The extra of the package that brings what the verb needs.
    """

    module: str
    help: str
    extra: str


VERBS = {
    "complete": Verb("picme_rt.verbs.complete", "complete a picture with a hole k times", "cpu"),
    "info": Verb("picme_rt.verbs.info", "say what an engine is and what would run it", "cpu"),
    "bench": Verb("picme_rt.verbs.bench", "time an engine's backends on this machine", "cpu"),
    "demo": Verb("picme_rt.verbs.demo", "complete a real photograph and show a sheet", "demo"),
    "completion": Verb("picme_rt.verbs.completion", "print completions for a shell", "cpu"),
    "pack": Verb("picme_training.pack_verb", "pack pictures to train from in a file", "train"),
    "train": Verb("picme_training.verb", "train a network from a configuration", "train"),
    "evaluate": Verb(
        "picme_training.evaluate.verb", "measure an engine or a checkpoint on pictures", "train"
    ),
    "internal": Verb(
        "picme_export.internal_verb", "learn one picture and fill its hole in many ways", "export"
    ),
    "export": Verb("picme_export.verb", "turn a checkpoint into an engine", "export"),
}


def make_parser(called: Container[str]) -> argparse.ArgumentParser:
    """The command's parser; only the verbs that are called have their arguments declared.

    So `picme --help` stays instant. A verb's module imports what is heavy when it runs.
    """
    parser = argparse.ArgumentParser(
        prog="picme",
        description="A photograph with a hole becomes k different, plausible photographs.",
    )
    parser.add_argument("--version", action="version", version=f"picme {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        own = verbs.add_parser(name, help=verb.help, description=verb.help + ".")
        if name in called:
            module = importlib.import_module(verb.module)
            module.add_arguments(own)
            own.set_defaults(run=module.run)
    return parser


class _Ended(KeyboardInterrupt):
    """The process was told to end, by a signal: everything unwinds as at Ctrl-C."""


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that goes away, as `_Ended`, unless somebody hears them."""

    def end(number: int, _: object) -> None:
        raise _Ended(number)

    names = ("SIGTERM", "SIGHUP")
    told = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        told = []  # no other may hear signals
    taken = [one for one in told if signal.getsignal(one) is signal.SIG_DFL]
    for one in taken:
        signal.signal(one, end)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; gives the exit code.

    It is 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, or 128 and the number of the signal
    that ended it.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("picme.names", _as_it_is_or_escaped)
        sys.stdout.reconfigure(errors="picme.names")
    try:
        parsed = make_parser(called=arguments[:1]).parse_args(arguments)
        with _told_to_end():
            parsed.run(parsed)
        if sys.stdout is not None:  # it is None where the caller closed it
            sys.stdout.flush()
    except PicmeError as exc:
        return _fail(str(exc))
    except ModuleNotFoundError as exc:
        name = arguments[0]
        if (exc.name or "").startswith("picme_"):
            raise  # a bug of ours, no package that is missing
        return _fail(
            f"`picme {name}` needs {exc.name or exc}, which is not installed; "
            f"pip install 'picme_rt[{VERBS[name].extra}]'"
        )
    except BrokenPipeError:  # the reader went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as exc:
        return _fail(f"{exc.filename or 'standard output'}: {exc.strerror or exc}")
    except _Ended as exc:
        name = signal.Signals(exc.args[0]).name
        print(f"picme: ended by {name}; files that were finished are whole", file=sys.stderr)
        return 128 + int(exc.args[0])
    except KeyboardInterrupt:
        print("picme: interrupted; files that were finished are whole", file=sys.stderr)
        return 130
    return 0


def _as_it_is_or_escaped(exc: UnicodeError) -> tuple[str | bytes, int]:
    """A name that is no text goes out as the bytes that it is; what has no bytes, escaped."""
    try:
        return codecs.lookup_error("surrogateescape")(exc)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(exc)


def _fail(message: str) -> int:
    print(f"picme: {' '.join(message.split())}", file=sys.stderr)
    return 1
