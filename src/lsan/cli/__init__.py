"""The `lsan` command. One module a subcommand; each is imported only when it is the one that runs."""

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from lsan.errors import LsanError

#: Subcommand -> one line of help. `lsan A-NAME` runs `lsan.cli.A_NAME`, which offers `add_arguments` and `run`.
COMMANDS = {
    "prepare": "turn an interaction log into a dataset folder",
    "fetch": "download a public dataset from its publisher",
    "simulate": "write the log of the built-in simulated shop",
    "train": "train a model on a dataset, or resume a run",
    "tune": "search for a better recipe on validation data",
    "evaluate": "rank the whole catalogue for every held-out event and report accuracy",
    "compare": "train several models on a dataset and set them beside the best",
    "plan": "tell before training what a model will cost: bytes, memory, time",
    "compress": "make a model many times smaller at nearly the same accuracy",
    "add-items": "add items that came after training to a model, without training",
    "remove-items": "take items out of a model, without training",
    "export": "write the one file that recommends without torch, checked against the model",
    "inspect": "show what is in an exported file",
    "verify": "check that an exported file is whole and answers as it did when it was made",
    "page": "write a static site that recommends in the browser, offline",
    "batch": "recommend for every user of a log, from an exported file",
    "serve": "recommend over HTTP from an exported file",
    "recommend": "recommend items for one history",
    "describe": "list the parts of a trained model with shapes and bytes",
    "demo": "simulate, prepare, train, evaluate, export, recommend and write a page, in one go",
}


class _OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, as all errors of `lsan` are."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"lsan.cli.{command.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return its exit status: 0, or 2 after an error that the user can act on."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:  # an import takes seconds too, in which somebody may stop it
        parser = _OneLineParser(prog="lsan", description="Next-item recommendation that fits on a phone.")
        subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
        for name, summary in COMMANDS.items():
            subparser = subparsers.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
            if arguments[:1] == [name]:
                _module(name).add_arguments(subparser)
        parsed = parser.parse_args(arguments)
        _module(parsed.command).run(parsed)
    except LsanError as error:
        from lsan.cli.terminal import readable  # takes a tenth of a second to import

        print(f"lsan: error: {readable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output went away, as in `lsan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a folder that may not be written, a name that is too long
        advice = ""
        if error.errno == errno.ENOSPC:
            advice = ": free some space and start it again (a training that had begun goes on with --resume)"
        where = error.filename or "input or output"
        print(f"lsan: error: {where}: {error.strerror or error}{advice}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lsan: interrupted", file=sys.stderr)
        return 130
    return 0
