"""The trainer: one network, one data set, one folder. Whatever interrupts it, --resume goes on to the same bits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import optim
from ..backend import HALF, Array, backend, image_dtype, kernels, random_state, set_random_state
from ..data import Batch, Compose, Dataset, Loader, channel_statistics
from ..interop.checkpoints import Checkpoint, load_checkpoint, load_weights, model_of, save_checkpoint
from ..tensor import Tensor
from ..words import counted
from . import prepare
from .config import TrainConfig
from .diagnose import TrainingError, diverged, first_gradient_not_finite, first_not_finite
from .evaluate import Evaluation, evaluate
from .interrupt import Interrupt, Stopped
from .losses import Loss
from .metrics import constant_prediction
from .predict import usual_tile
from .progress import Progress, clock, compiling_said
from .runs import RunFolder
from .state import apart, facts, go_on, names_sum, resumable, together

if TYPE_CHECKING:
    from ..models import Segmenter

REDRAW = 60.0  # seconds after which the pictures are drawn again while training goes on


class Trainer:
    """Trains `model` on `train`, validates it on `val` after each epoch and keeps everything in `folder`.

    Create it with the library's random numbers as they shall go on (`minidcnn.manual_seed`, then the model). `restore` takes up the state
    of last.safetensors; `fit` trains to the end. What decides the result is in the checkpoint: weights, optimizer, schedule, loss scale,
    random numbers, how far the epoch has come, the best score.
    DataError for data that cannot be used, ValueError for options that do not fit together or sizes that the network does not take.
    """

    def __init__(
        self, model: Segmenter, train: Dataset, val: Dataset, config: TrainConfig, folder: RunFolder, *, shown: bool | None = None
    ) -> None:
        self.model, self.train, self.val, self.config, self.folder, self.shown = model, train, val, config, folder, shown
        self.warnings: list[str] = []
        counts, held_out = prepare.look_over(train, val, config, model, self.warnings.append)
        self.shares = held_out.frequencies  # of the classes, in the pixels that scores count
        mean, std = channel_statistics(train)
        self.mean, self.std = mean.tolist(), [s if s > 0 else 1.0 for s in std.tolist()]
        self.loss = Loss(config.loss, prepare.class_weights(config, counts), train.ignore_index)
        batch = min(config.batch_size, len(train))
        self.uploads = kernels().uploads()
        self.graphs = kernels().graphs(self._gradients) if config.graph else None
        self.loader = Loader(
            train,
            batch,
            shuffle=True,
            seed=config.seed,
            transform=self._transform(),
            drop_last=True,  # a new order each epoch leaves out others each time
            prefetch=config.prefetch,
            then=self._send,
        )
        self.steps = len(self.loader) * config.repeat  # in an epoch
        if config.limit:
            self.steps = min(self.steps, config.limit)
        self.optimizer = prepare.make_optimizer(config, model)
        self.scaler = optim.GradScaler(enabled=image_dtype() == HALF)
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.schedule = prepare.make_schedule(config, self.optimizer, self.steps * config.epochs)
        self.epoch = 0  # epochs that are complete
        self.step = 0  # steps done in the one after that
        self.loss_sum, self.loss_size = 0.0, 0.0  # of these steps
        self.best: dict[str, Any] = {}  # epoch and val_miou
        self.history: list[dict[str, Any]] = []
        self.saved = ""  # what last.safetensors holds, in words
        self.started = ""  # what the weights were taken from, in words; at random if empty

    def _transform(self) -> Compose:
        return prepare.training_transform(self.config, self.model, self.train.channels, self.mean, self.std)

    # -- the whole run -----------------------------------------------------------------------------------------------------

    def fit(self) -> list[dict[str, Any]]:
        """Train to the last epoch and return the history, one dict per epoch, as in metrics.jsonl.

        Stopped after Ctrl-C, when the state is saved; TrainingError if the loss is no number any more, DataError for bad files.
        """
        total, done = self.steps * self.config.epochs, self.epoch * self.steps + self.step
        quiet = np.errstate(all="ignore")  # NumPy need not warn of NaN: every step is checked
        with Progress(total, done, shown=self.shown) as self.progress, compiling_said(self.shown), quiet:
            for warning in self.warnings:
                self.progress.warn(warning)
            self.drawn = time.perf_counter()
            with Interrupt() as self.interrupt, self.graphs or nullcontext():
                try:
                    while self.epoch < self.config.epochs:
                        self._epoch()
                except Stopped:
                    self._save_last()
                    self.draw_curves()
                    raise
            self.progress.tell("drawing pictures")
            self.draw_pictures()
        return self.history

    def _epoch(self) -> None:
        started, seconds, images = time.perf_counter(), self.progress.seconds, self.progress.images
        self.model.train()
        for batch, placed in self._batches():
            tick = time.perf_counter()
            value = self._step(batch, placed)
            self.progress.step(self._title(), value, len(batch), time.perf_counter() - tick)
            self.interrupt.check()
        self.interrupt.check()
        evaluation = self._validate()
        entry = self._record(evaluation)
        entry["seconds"] = round(time.perf_counter() - started, 3)
        entry["images_per_second"] = round((self.progress.images - images) / max(self.progress.seconds - seconds, 1e-9), 3)
        self.history.append(entry)
        better = not self.best or entry["val_miou"] > self.best["val_miou"]
        if better:
            self.best = {"epoch": entry["epoch"], "val_miou": entry["val_miou"]}
        self.epoch, self.step, self.loss_sum, self.loss_size = self.epoch + 1, 0, 0.0, 0.0
        if isinstance(self.schedule, optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step(entry["val_loss"])
        self.folder.write_metrics(self.history)  # before the checkpoint: resuming drops lines too many, but cannot invent one
        if better:
            save_checkpoint(self.folder.best, self._checkpoint(training=False))
        self._save_last()
        self._report(entry, better)
        if time.perf_counter() - self.drawn > REDRAW:
            self.progress.tell("drawing pictures")
            self.draw_curves()
            self.draw_predictions(self.model)
            self.drawn = time.perf_counter()

    def _batches(self) -> Iterator[tuple[Batch, Any]]:
        """The batches of this epoch that are not done yet, each with what `uploads.take` wants."""
        try:
            for index in range(self.step // len(self.loader), self.config.repeat):
                for batch in self.loader.batches(self.epoch * self.config.repeat + index, self.step % len(self.loader)):
                    if self.step == self.steps:
                        return
                    yield batch
        finally:  # some may have been prepared for nothing
            self.uploads.clear()

    def _send(self, batch: Batch) -> tuple[Batch, Any]:
        """The batch, and its arrays on their way: images, and masks and weights as far as the network answers for them."""
        return batch, self.uploads.put((batch.images.astype(image_dtype(), order="K", copy=False), *self._inner(batch)))

    def _inner(self, batch: Batch) -> tuple[Array, Array | None]:
        margin = self.model.margin
        inner = np.s_[:, margin : batch.masks.shape[1] - margin, margin : batch.masks.shape[2] - margin]
        return batch.masks[inner], None if batch.weights is None else batch.weights[inner]

    # -- one step ------------------------------------------------------------------------------------------------------------

    def _step(self, batch: Batch, placed: Any) -> float:
        """One step down the gradient. Returns the loss; TrainingError if it, or the gradient, is not finite: nothing has changed then.

        A float16 run goes on without the step if a gradient overflowed for its scale alone.
        """
        scale = self.scaler.get_scale()
        arrays: tuple[Any, ...] = *self.uploads.take(placed), kernels().scalar(scale, "float32")
        loss, squares, *gradients = (self.graphs or self._gradients)(*arrays)
        for p, g in zip(self._trained, gradients, strict=True):
            p.grad = None if g is None else Tensor.wrap(g)
        value = float(Tensor.wrap(loss).item())
        if not np.isfinite(value):
            raise self._diverged(f"the loss is {value:g}; {first_not_finite(self.model, Tensor.wrap(arrays[0]))}")
        norm = float(Tensor.wrap(squares).item()) ** 0.5 / scale if squares is not None else 0.0
        finite = bool(np.isfinite(norm))
        if not finite and scale <= 1:
            raise self._diverged(f"the gradient is not finite; {first_gradient_not_finite(self.model)}")
        self.scaler.unscale_(self.optimizer, finite)
        if self.config.clip and finite:
            optim.scale_grads_(self._trained, self.config.clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not isinstance(self.schedule, optim.lr_scheduler.ReduceLROnPlateau):
            self.schedule.step()
        size = self.loss.size(*self._inner(batch))
        self.loss_sum, self.loss_size, self.step = self.loss_sum + value * size, self.loss_size + size, self.step + 1
        return value

    def _gradients(self, images: Array, masks: Array, weights: Array | None, scale: Array) -> tuple[Any, ...]:
        """Forward and backward pass, without waiting for a value: the loss, the sum of all gradients' squares, and the gradients, times `scale`.

        Arrays in and out, since a graph repeats what is done to them and nothing else.
        """
        self.optimizer.zero_grad()
        loss = self.loss(self.model(Tensor.wrap(images)), Tensor.wrap(masks), None if weights is None else Tensor.wrap(weights))
        loss.backward(Tensor.wrap(scale))
        gradients = (None if p.grad is None else p.grad._array for p in self._trained)
        return loss.detach()._array, optim.power_sum(self._trained), *gradients

    def _diverged(self, what: str, validating: bool = False) -> TrainingError:
        done = self.epoch * self.steps + self.step
        where = f"in validation after step {done} (epoch" if validating else f"at step {done + 1} (step {self.step + 1} of epoch"
        best = str(self.folder.best) if self.best else None
        return diverged(f"{where} {self.epoch + 1})", what, self.kept(), best, self.config.lr, self.scaler.is_enabled())

    def kept(self) -> str:
        """What is left of a run that broke off, in words."""
        if not self.saved:
            return "nothing was saved yet"
        pictures = (
            "; the run is complete, --resume draws its pictures" if self.epoch >= self.config.epochs and self.saved == self.so_far() else ""
        )
        return f"{self.folder.last} keeps the state {self.saved}{pictures}"

    def so_far(self) -> str:
        """How much is done, in words."""
        return f"after epoch {self.epoch}" + (f", step {self.step} of {self.steps}" if self.step else "")

    # -- after an epoch ------------------------------------------------------------------------------------------------------

    def _validate(self) -> Evaluation:
        def progress(done: int, total: int) -> None:
            self.progress.validating(self._title(), done, total)
            self.interrupt.check()

        try:
            return evaluate(
                self.model, self.val, mean=self.mean, std=self.std, loss=self.loss, batch_size=self.config.batch_size,
                tile=usual_tile(self.model), progress=progress,
            )  # fmt: skip
        except FloatingPointError as error:
            raise self._diverged("the network answers with NaN", validating=True) from error

    def _record(self, evaluation: Evaluation) -> dict[str, Any]:
        """The epoch's line in metrics.jsonl."""
        entry: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "step": (self.epoch + 1) * self.steps,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "train_loss": self.loss_sum / self.loss_size if self.loss_size else 0.0,
            "val_loss": evaluation.loss,
            **evaluation.confusion.scores("val_"),
        }
        if self.scaler.is_enabled():
            entry["scale"] = self.scaler.get_scale()
        warning = constant_prediction(evaluation.confusion, self.val.classes)
        if warning is not None:
            entry["warning"] = warning
        return entry

    def _report(self, entry: dict[str, Any], better: bool) -> None:
        width = len(str(self.config.epochs))
        self.progress.say(
            f"epoch {entry['epoch']:{width}}/{self.config.epochs}  loss {entry['train_loss']:.4f}  val loss {entry['val_loss']:.4f}  pixel accuracy "
            f"{entry['val_pixel_accuracy']:.4f}  mean IoU {entry['val_miou']:.4f}{' *' if better else '  '}  {clock(entry['seconds'])}"
        )
        if "warning" in entry and (len(self.history) < 2 or "warning" not in self.history[-2]):  # once, until it gets better
            self.progress.warn(entry["warning"])

    def _title(self) -> str:
        return f"epoch {self.epoch + 1}/{self.config.epochs}"

    # -- checkpoints -----------------------------------------------------------------------------------------------------------

    def _checkpoint(self, training: bool) -> Checkpoint:
        info = facts(self.train, self.val, self.mean, self.std, self.config.data)
        info["epoch"] = self.epoch
        info["scores"] = {key: value for key, value in self.history[-1].items() if key.startswith("val_")} if self.history else {}
        if not training:
            return Checkpoint(self.model.name, self.model.config, self.model.state_dict(), info)
        optimizer, arrays = apart(self.optimizer.state_dict())
        state = {
            "epoch": self.epoch,
            "step": self.step,
            "loss_sum": self.loss_sum,
            "loss_size": self.loss_size,
            "best": self.best,
            "images": len(self.train),
            "names": names_sum(self.train),
            "optimizer": optimizer,
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random_state": random_state(),
        }
        return Checkpoint(self.model.name, self.model.config, self.model.state_dict(), info, state, arrays)

    def _save_last(self) -> None:
        save_checkpoint(self.folder.last, self._checkpoint(training=True))
        self.saved = self.so_far()

    def restore(self) -> None:
        """Take up the state in last.safetensors; without that file the run starts from its beginning, which is where it was.

        CheckpointError if it does not fit; and what `resumable` raises.
        """
        checkpoint = resumable(self.folder, self.config.epochs, self.train, self.val)
        if checkpoint is None:
            return
        state = checkpoint.training
        load_weights(self.model, checkpoint)
        self.optimizer.load_state_dict(together(state["optimizer"], checkpoint.training_tensors))
        go_on(self.schedule, state["schedule"])
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.loss_sum, self.loss_size, self.best = state["loss_sum"], state["loss_size"], state["best"]
        self.mean, self.std = checkpoint.info["mean"], checkpoint.info["std"]
        self.loader.transform = self._transform()  # the network knows images normalised so, even if some are others now
        self.history = [entry for entry in self.folder.read_metrics() if entry["epoch"] <= self.epoch]
        self.folder.write_metrics(self.history)
        set_random_state(state["random_state"])
        self.saved = self.so_far()

    # -- pictures ----------------------------------------------------------------------------------------------------------------

    def draw_pictures(self) -> None:
        """Both, as they are at the end: predictions are the best network's."""
        self.draw_curves()
        self.draw_predictions(model_of(load_checkpoint(self.folder.best)) if self.folder.best.exists() else self.model)

    def draw_curves(self) -> None:
        """curves.png: losses and scores of all epochs."""
        from .figures import curves

        curves(self.history, self.folder.curves)

    def draw_predictions(self, model: Segmenter) -> None:
        """predictions.png: some of the held-out images, evenly chosen, as `model` sees them."""
        from .gallery import predictions_of

        predictions_of(model, self.val, self.folder.predictions, mean=self.mean, std=self.std)

    def describe(self) -> str:
        """What is about to be trained, in a few lines."""
        images = f"{self.config.data}: {counted(len(self.train), 'image')} to train on, {len(self.val)} held out"
        kinds = f"{counted(self.train.channels, 'channel')}, {counted(len(self.train.classes), 'class')}"
        size = sum(parameter.size for parameter in self.model.parameters())
        return (
            f"{images}, {kinds}\n{self.model.name}: {size:,} parameters on {backend()}, {counted(self.config.epochs, 'epoch')} of "
            f"{counted(self.steps, 'step')} of {counted(self.loader.batch_size, 'image')}\nresults in {self.folder}"
            + (f"\n{self.started}" if self.started else "")
        )
