"""Loss scaling: the small gradients of float16 are lifted out of what it rounds to zero, and steps whose gradients overflowed are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import HALF
from ..tensor import Tensor
from ..window import integer
from .checks import complete
from .clip import scale_all
from .optimizer import Optimizer

LARGEST, SMALLEST = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)  # of the scale: the loss is float32


@dataclass
class _Stage:
    """How far an optimizer is since the last update()."""

    finite: list[Any] | None = (
        None  # whether its gradients are: bools, or arrays without axes where the gradients live; None before unscale_
    )
    stepped: bool = False


class GradScaler:
    """Multiplies a loss by a scale, divides the gradients by it, and finds the largest scale with which they stay finite.

        scaler = optim.GradScaler()
        for images, masks in batches:
            optimizer.zero_grad()
            scaler.scale(loss(model(images), masks)).backward()
            scaler.unscale_(optimizer)  # only if the gradients themselves are wanted: for clip_grad_norm_, say
            scaler.step(optimizer)  # does nothing if a gradient is infinite or NaN
            scaler.update()

    The scale is multiplied by `backoff_factor` after a step that was left out, and by `growth_factor` after `growth_interval` steps in a row that
    were not. Micikevicius et al., "Mixed precision training", 2018, section 3.2. Names, values and order of calls are those of torch.amp.GradScaler,
    without its `device`: a scaler works where the gradients are. With enabled=False every method passes through what it gets.

    The scale is a number of the host. On a GPU unscale_ is one launch, however many gradients there are, and waits for nothing; one value comes
    down in each step(): whether all of them were finite.
    ValueError for settings out of range.
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if not 0 < init_scale <= LARGEST:
            raise ValueError(f"GradScaler: init_scale must be a positive number of float32, got {init_scale}")
        if not growth_factor > 1:
            raise ValueError(f"GradScaler: growth_factor must be above 1, got {growth_factor}")
        if not 0 < backoff_factor < 1:
            raise ValueError(f"GradScaler: backoff_factor must lie between 0 and 1, got {backoff_factor}")
        self._scale, self._enabled = float(init_scale), enabled
        self._growth_factor, self._backoff_factor = float(growth_factor), float(backoff_factor)
        self._growth_interval = integer(growth_interval, "GradScaler: growth_interval", 1)
        self._good = 0  # steps in a row
        self._stages: dict[int, _Stage] = {}  # by the id of the optimizer

    def scale(self, outputs: Any) -> Any:
        """A tensor, or each one in (nested) lists and tuples, times the scale. TypeError for anything else."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._scale
        if isinstance(outputs, list | tuple):
            return type(outputs)(map(self.scale, outputs))
        raise TypeError(f"GradScaler.scale: outputs must be a Tensor, or lists or tuples of them, got {type(outputs).__name__}")

    def unscale_(self, optimizer: Optimizer, finite: bool | None = None) -> None:
        """Divide the gradients of the optimizer's parameters by the scale, in place.

        finite: whether they are, for who knows already; else it is found out where they live, and read by step(). RuntimeError the second time
        before update(), and after step(); ValueError for float16 parameters, whose steps would be lost in rounding: keep them in float32.
        """
        if not self._enabled:
            return
        stage = self._stages.get(id(optimizer), _Stage())
        if stage.stepped or stage.finite is not None:
            raise RuntimeError(
                f"GradScaler.unscale_: {'step()' if stage.stepped else 'unscale_()'} came already; call update() after each step"
            )
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if any(g.dtype == HALF for g in gradients):
            raise ValueError("GradScaler.unscale_: a parameter is float16; keep parameters in float32, and give the network float16 images")
        if not gradients:
            raise RuntimeError("GradScaler.unscale_: no parameter of this optimizer has a gradient; call scale(loss).backward() first")
        results = scale_all(gradients, 1 / self._scale, look=finite is None)
        self._stages[id(optimizer)] = _Stage(results if finite is None else [finite])

    def step(self, optimizer: Optimizer, closure: Callable[[], Any] | None = None) -> Any:
        """optimizer.step(), unless a gradient is infinite or NaN; calls unscale_ if that was not done.

        RuntimeError the second time before update(), and for a closure, which only a scaler that is not enabled passes on.
        """
        if not self._enabled:
            return optimizer.step(closure)
        if closure is not None:
            raise RuntimeError(
                "GradScaler.step: a closure would make gradients that nobody has unscaled; compute loss and gradients before"
            )
        if self._stages.get(id(optimizer), _Stage()).stepped:
            raise RuntimeError("GradScaler.step: it came already for this optimizer; call update() after each step")
        if self._stages.get(id(optimizer), _Stage()).finite is None:
            self.unscale_(optimizer)
        good = all(map(bool, self._stages[id(optimizer)].finite or ()))
        self._stages[id(optimizer)] = _Stage([good], stepped=True)
        return optimizer.step() if good else None

    def update(self, new_scale: float | None = None) -> None:
        """End the step: lower the scale if an optimizer's gradients were not finite, raise it after enough that were; or set it to `new_scale`.

        RuntimeError if no gradients were looked at since the last time, ValueError for a new_scale that is no positive number of float32.
        """
        if not self._enabled:
            return
        stages = list(self._stages.values())
        if new_scale is not None:
            if not 0 < new_scale <= LARGEST:
                raise ValueError(f"GradScaler.update: new_scale must be a positive number of float32, got {new_scale}")
            self._scale, self._stages = float(new_scale), {}
            return
        if not stages:
            raise RuntimeError("GradScaler.update: there was no step() since the last update()")
        self._stages = {}
        if not all(bool(finite) for stage in stages for finite in stage.finite or ()):
            self._scale, self._good = max(self._scale * self._backoff_factor, SMALLEST), 0
            return
        self._good += 1
        if self._good == self._growth_interval:
            grown = self._scale * self._growth_factor
            self._scale, self._good = grown if grown <= LARGEST else self._scale, 0

    def get_scale(self) -> float:
        """The present scale; 1 if not enabled."""
        return self._scale if self._enabled else 1.0

    def is_enabled(self) -> bool:
        """Whether it does anything."""
        return self._enabled

    def get_growth_factor(self) -> float:
        """What the scale is multiplied by after `growth_interval` good steps."""
        return self._growth_factor

    def get_backoff_factor(self) -> float:
        """What the scale is multiplied by after a step that was left out."""
        return self._backoff_factor

    def get_growth_interval(self) -> int:
        """How many good steps in a row raise the scale."""
        return self._growth_interval

    def state_dict(self) -> dict[str, Any]:
        """Scale, settings and the good steps in a row, under torch's names; {} if not enabled. Between update() and the next step only."""
        if not self._enabled:
            return {}
        return {
            "scale": self._scale,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._good,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where state_dict() was taken. ValueError for one without all its keys: that of a scaler which was not enabled is empty."""
        if not self._enabled:
            return
        if isinstance(state_dict, Mapping) and not state_dict:
            raise ValueError("GradScaler.load_state_dict: the state is empty, that of a scaler which was not enabled")
        settings = ("scale", "_growth_tracker", "growth_factor", "backoff_factor", "growth_interval")
        complete("GradScaler.load_state_dict", state_dict, *settings)
        self._scale, self._good = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        self._growth_factor, self._backoff_factor = float(state_dict["growth_factor"]), float(state_dict["backoff_factor"])
        self._growth_interval = int(state_dict["growth_interval"])
