"""What is to be measured, as the processes that measure are told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

#: What can be measured, in words.
WHATS = {
    "step": "a training step", "infer": "an inference", "layers": "each convolution of a step by itself",
    "memory": "the most memory that steps take", "cold": "the first step, with nothing compiled and with everything",
    "sweep": "training steps over image sizes and over batches, time per pixel",
    "kernels": "each CUDA kernel of a step, with --backend cupy",
}  # fmt: skip
NETS = {"unet": (1, 3, 256, 256), "segnet": (1, 3, 360, 480), "fcn8s": (1, 3, 224, 224)}  # the usual shapes of images
CLASSES = {"unet": 2, "segnet": 11, "fcn8s": 21}


@dataclass(frozen=True)
class Job:
    """`what` of WHATS for network `net` of NETS on images of `shape` (N, C, H, W), its first layer having `base` channels.

    recompute: train with less memory (see models.Segmenter). A sweep takes single square images of all `sizes`, and `batches` of `shape`'s.
    backend, precision: see `minidcnn.use`; float16 images with loss scaling, else float32 ones. graph: on a GPU, launch forward and backward pass
    as one CUDA graph.
    """

    what: str = "step"
    net: str = "unet"
    shape: tuple[int, int, int, int] = NETS["unet"]
    base: int = 64
    recompute: bool = False
    sizes: tuple[int, ...] = (64, 128, 256, 512, 1024)
    batches: tuple[int, ...] = (1, 2, 4, 8)
    backend: str = "numpy"
    precision: str = "float32"
    graph: bool = False

    @property
    def classes(self) -> int:
        return CLASSES[self.net]

    def points(self) -> list[Job]:
        """The training steps of a sweep, each once, the cheapest first."""
        _, c, h, w = self.shape
        shapes = {(1, c, size, size) for size in self.sizes} | {(n, c, h, w) for n in self.batches}
        return [replace(self, what="step", shape=shape) for shape in sorted(shapes, key=lambda s: (s[0] * s[2] * s[3], s))]

    def told(self, **more: Any) -> dict[str, Any]:
        """The job as plain values for JSON, with what else a process must know."""
        return {**asdict(self), "classes": self.classes, **more}
