"""What is to be measured, as the processes that measure are told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

WHATS = ("step", "infer", "layers", "memory", "cold")
NETS = {"unet": (1, 3, 256, 256), "segnet": (1, 3, 360, 480), "fcn8s": (1, 3, 224, 224)}  # the usual shapes of images
CLASSES = {"unet": 2, "segnet": 11, "fcn8s": 21}


@dataclass(frozen=True)
class Job:
    """`what` of WHATS for network `net` of NETS on float32 images of `shape` (N, C, H, W), its first layer having `base` channels."""

    what: str = "step"
    net: str = "unet"
    shape: tuple[int, int, int, int] = NETS["unet"]
    base: int = 64

    @property
    def classes(self) -> int:
        return CLASSES[self.net]

    def told(self, **more: Any) -> dict[str, Any]:
        """The job as plain values for JSON, with what else a process must know."""
        return {**asdict(self), "classes": self.classes, **more}
