"""The command line: `python -m minidcnn COMMAND ...`, a module of this folder for each command.

A command's module has a docstring, which `--help` shows, `arguments(parser)`, and `run(args)`, which returns the exit code: 0, or 1 if what
was asked for is done and something in it is wrong. Wrong use is one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from .. import __version__
from ..backend import BackendError
from ..segmentation.output import threads_given, written_out
from ..segmentation.progress import any_name_printable, compiling_said, sentence
from .common import Parser, fail

COMMANDS = {
    "check": "look a data set over before training: pairs, sizes, class frequencies, and everything that is wrong",
    "show": "a picture of a data set's images with their masks",
    "predict": "segment images with a trained network",
    "evaluate": "score a trained network on a data set",
    "export": "write a trained network as an ONNX file, for programs that know nothing of minidcnn",
    "summary": "layers, sizes, parameters and multiply-adds of a network",
    "bench": "how fast networks train and predict here, and PyTorch beside them",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` is what follows the program's name. Returns the exit code."""
    any_name_printable()
    args = argparse.Namespace()
    try:
        with written_out(), threads_given():
            return _run(list(sys.argv[1:] if argv is None else argv), args)
    except BrokenPipeError:  # the reader, such as `| head`, has seen enough
        return 1
    except KeyboardInterrupt as error:
        return fail(sentence(error), 130)
    except MemoryError as error:
        way_out = "; a smaller --tile needs less" if hasattr(args, "tile") else ""
        return fail(f"{sentence(error)}{way_out}")
    except (OSError, ValueError, ArithmeticError, BackendError) as error:  # the library's own sentences
        return fail(sentence(error))


def _run(argv: list[str], args: argparse.Namespace) -> int:
    """Parse and run one command, whose options come into `args`; errors are the caller's."""
    program = "python -m minidcnn" if os.path.basename(sys.argv[0]) in ("__main__.py", "-m") else "minidcnn"
    if not argv or argv[0] in ("-h", "--help"):
        print(_help(program))
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"minidcnn {__version__}")
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        return fail(f"there is no command {name!r}{f', did you mean {near[0]}?' if near else ''}; {program} --help lists them")
    command = importlib.import_module(f"{__name__}.{name}")
    parser = Parser(prog=f"{program} {name}", description=command.__doc__)
    command.arguments(parser)
    parser.parse_args(rest, args)
    os.environ["MPLBACKEND"] = "agg"  # pictures need no screen, and a notebook's backend may not be installed here
    with compiling_said():
        return int(command.run(args))


def _help(program: str) -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            f"usage: {program} COMMAND ...",
            "",
            f"minidcnn {__version__}. Training is a script, python examples/train_unet.py (train_segnet.py, train_fcn.py); the rest is here:",
            "",
            *(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()),
            "",
            f"{program} COMMAND --help explains a command.",
        ]
    )
