"""The examples' main function: from the command line to a trained network, and every foreseeable error as one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..backend import BackendError, manual_seed, use
from ..data import DataError, Dataset
from ..data.sample import size_text
from ..data.written import shell_text
from ..interop.checkpoints import CheckpointError
from .diagnose import TrainingError, out_of_memory
from .interrupt import Stopped
from .metrics import score_table
from .options import AddOptions, Request, read_options
from .output import threads_given, written_out
from .prepare import open_data
from .progress import any_name_printable, sentence
from .start import start_from
from .train import Trainer

if TYPE_CHECKING:
    from ..models import Segmenter

Build = Callable[[Dataset, dict[str, Any]], "Segmenter"]  # (training data, the network's own options) -> a network


def main(
    network: str,
    build: Build,
    *,
    add_options: AddOptions | None = None,
    adjust: Mapping[str, Mapping[str, Any]] | None = None,
    description: str | None = None,
    argv: Sequence[str] | None = None,
) -> None:
    """Train `build(dataset, options)` as the command line says.

    network: the name of runs. add_options(group): adds the network's own options, which `build` gets as a dict. adjust: see `config.defaults`.
    Ends the program with status 2 and one sentence for what a user can mend (data, options, checkpoints, backend), 1 for a training that
    diverged, ran out of memory or printed what nobody reads any more, 130 after Ctrl-C.
    """
    any_name_printable()
    os.environ["MPLBACKEND"] = "agg"  # pictures need no screen, and a notebook's backend may not be installed here
    with one_sentence_errors(), written_out(), threads_given(), ExitStack() as claim:
        with mendable():
            request = read_options(network, argv, description=description, add_options=add_options, adjust=adjust)
            claim.enter_context(request.folder.claimed(request.resume))
        try:
            with mendable():
                trainer = make_trainer(request, build)
            run(trainer, request)
        except BaseException:
            if not (request.resume or request.folder.last.exists()):
                request.folder.discard()  # so that the same --out may be tried again
            raise


def make_trainer(request: Request, build: Build) -> Trainer:
    """The trainer of a request, at the state that it resumes. Same seed, same bits."""
    config = request.config
    use(config.backend, config.precision)
    train, val = open_data(config)
    manual_seed(config.seed)
    model = build(train, dict(config.network_options))
    model.recompute = config.recompute
    trainer = Trainer(model, train, val, config, request.folder)
    if request.resume:
        trainer.restore()
    if config.start is not None and not trainer.saved:
        trainer.started = start_from(config.start, model, train, val, config.data, trainer.warnings.append)
    if not request.resume:  # by now, where folders cannot be claimed
        request.folder.demand_no_run()
    request.folder.write_config(config)
    return trainer


def run(trainer: Trainer, request: Request) -> None:
    """Train to the end and say what came of it. A ValueError of the first step is about the options, too: sizes that do not suit the network."""
    epochs, folder = request.config.epochs, request.folder
    if trainer.epoch >= epochs:
        if folder.pictures_are_old:  # the run broke off while it drew them
            trainer.draw_pictures()
            print(f"{folder.curves} and {folder.predictions} were missing or old, and are drawn now")
        print(f"the run in {folder} is complete ({trainer.epoch} of {epochs} epochs); --resume --epochs N goes on to a larger N")
        return
    print(trainer.describe())
    if request.resume:
        print(f"resuming {trainer.so_far()}")
    try:
        trainer.fit()
    except Stopped:
        again = f"{shell_text(sys.argv[0])} --out {shell_text(str(folder))} --resume"
        raise Stopped(f"stopped in epoch {trainer.epoch + 1} of {epochs} after step {trainer.step}; go on with: python {again}") from None
    except KeyboardInterrupt:  # asked twice
        raise Stopped(f"interrupted; {trainer.kept()}") from None
    except BrokenPipeError as error:
        raise TrainingError(f"nobody reads the output any more; {trainer.kept()}") from error
    except (DataError, OSError) as error:  # an image is gone, or the disk is full
        raise type(error)(f"{error}; {trainer.kept()}") from error
    except ValueError as error:
        if trainer.epoch or trainer.step:
            raise
        crop = request.config.crop
        shown = "none" if crop is None else size_text(crop)
        raise _Mendable(f"{error} (--batch-size is {request.config.batch_size}, --crop {shown})") from error
    except MemoryError as error:
        config = request.config
        said = out_of_memory(error, config.batch_size, config.crop, config.recompute, validating=trainer.step == trainer.steps)
        raise TrainingError(f"{said}; {trainer.kept()}") from error
    number, miou = trainer.best["epoch"], trainer.best["val_miou"]
    best = next((entry for entry in trainer.history if entry["epoch"] == number), None)
    if best is None:  # somebody removed its line, which was damaged
        print(f"\nbest mean IoU {miou:.4f} (epoch {number}), on held-out images")
    else:
        print(f"\nbest mean IoU {miou:.4f} (epoch {number}), on held-out images:")
        print(score_table(trainer.val.classes, trainer.shares, {key.removeprefix("val_"): value for key, value in best.items()}))
    print(f"\nlook at {folder.curves} and {folder.predictions}; predict with")
    print(f"  python -m minidcnn predict {shell_text(str(folder.best))} IMAGE... --out predicted")


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """What a user can mend ends the program with a sentence on stderr instead of a traceback."""
    try:
        yield
    except BrokenPipeError:  # before training or after it, as `| head` has seen enough
        sys.exit(1)
    except (_Mendable, DataError, CheckpointError, BackendError, OSError) as error:
        _leave(f"error: {sentence(error)}", 2)
    except (TrainingError, MemoryError) as error:  # of memory before or after training; of that in it, `run` has more to say
        _leave(f"error: {sentence(error)}", 1)
    except (Stopped, KeyboardInterrupt) as stopped:  # the latter before training, or after it
        _leave(sentence(stopped), 130)


@contextmanager
def mendable() -> Iterator[None]:
    """Until training begins, a ValueError is about the options; so is one of the first step, see `run`."""
    try:
        yield
    except ValueError as error:
        raise _Mendable(str(error)) from error


class _Mendable(Exception):  # what it is about is in its cause
    pass


def _leave(text: str, status: int) -> None:
    print(" ".join(text.split()), file=sys.stderr)
    sys.exit(status)
