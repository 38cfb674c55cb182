"""`picme completion SHELL`: a script that completes verbs, flags and file names in a shell."""

import argparse
from pathlib import Path

from picme_rt import cli, verbs

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.epilog = 'In ~/.bashrc: eval "$(picme completion bash)"'
    parser.add_argument("shell", choices=SHELLS, help="the shell to print for")


def run(arguments: argparse.Namespace) -> None:
    """Prints the script: `eval "$(picme completion bash)"` in a shell's start file."""
    import shtab

    parser = cli.make_parser(called=cli.VERBS)
    choices = next(a.choices for a in parser._actions if isinstance(a.choices, dict))
    for verb in choices.values():
        for action in verb._actions:
            if action.type in (Path, verbs.engine):
                action.complete = shtab.FILE
    print(shtab.complete(parser, arguments.shell))
