"""The process that measures minidcnn: `python -m minidcnn.bench.worker JOB`, JOB being a Job in JSON. It answers each line of stdin.

"run" is one step, one inference, or layer K for "run K": seconds. "memory": the most bytes that were resident. "machine": what this
processor can do at most. "kernels": each kernel of a run, on a GPU. Each answer is one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

_START = time.perf_counter()

import numpy as np  # noqa: E402  # the clock runs before anything is imported

from .. import functional as F  # noqa: E402
from .. import models, nn, optim  # noqa: E402
from ..autograd import no_grad  # noqa: E402
from ..backend import HALF, Array, BackendError, Kernels, backend, image_dtype, kernels, nchw, to_backend, use, use_kernels  # noqa: E402
from ..backend.cpu import CpuKernels  # noqa: E402
from ..backend.cuda import CudaKernels  # noqa: E402
from ..tensor import Tensor  # noqa: E402
from ..window import Window  # noqa: E402
from .device import Gpu, normal  # noqa: E402

Run = Callable[[], object]
TO_THE_END = ExitStack()  # of the process


def main() -> None:
    job = json.loads(sys.argv[1])
    imported = time.perf_counter() - _START
    layers = job.get("layers", [])
    try:
        use(job["backend"], job["precision"])
        runs = [layer(item) for item in layers] if layers else [network(job)]
    except BackendError as error:
        answer(error=str(error))
        return
    gpu = Gpu() if backend() == "cupy" else None
    answer(imported=imported, layers=record(runs[0]) if job.get("record") else [])
    for line in sys.stdin:
        command, *which = line.split()
        if command == "run":
            run = runs[int(which[0]) if which else 0]
            answer(seconds=gpu.timed(run) if gpu else timed(run))
        elif command == "memory":
            answer(peak=gpu.peak() if gpu else peak_memory())
        elif command == "machine":
            answer(**(gpu.machine(job["precision"]) if gpu else machine(job["precision"])))
        elif command == "kernels" and gpu:
            answer(kernels=gpu.profile(runs[0]))


def answer(**values: Any) -> None:
    print(json.dumps(values), flush=True)


def timed(run: Run) -> float:
    """Seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def network(job: dict[str, Any]) -> Run:
    """One training step, or one inference, of the network that the job names."""
    n, c, h, w = job["shape"]
    make: dict[str, Callable[[], models.Segmenter]] = {
        "unet": lambda: models.UNet(c, job["classes"], base=job["base"], padding="same", norm="batch"),
        "segnet": lambda: models.SegNet(c, job["classes"], width=job["base"]),
        "fcn8s": lambda: models.FCN8s(job["classes"], c, width=job["base"]),
    }
    model = make[job["net"]]()
    model.recompute = job["recompute"]
    rng = np.random.default_rng(0)
    x = Tensor(nchw(rng.random((n, h, w, c), dtype=np.float32)), dtype=image_dtype())
    if job["what"] == "infer":
        model.eval()
        if job.get("constant"):
            TO_THE_END.enter_context(nn.constant_weights(model))

        def infer() -> None:
            with no_grad():
                model(x)

        return infer
    target = Tensor(rng.integers(0, job["classes"], (n, *model.output_size((h, w)))))
    optimizer = optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    parameters = list(model.parameters())
    scaler = optim.GradScaler(growth_interval=1 << 30, enabled=image_dtype() == HALF)  # a graph repeats one scale

    def gradients(images: Array, labels: Array) -> tuple[Any, ...]:
        loss = F.cross_entropy(model(Tensor.wrap(images)), Tensor.wrap(labels))
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        return tuple(None if p.grad is None else p.grad._array for p in parameters)

    work = TO_THE_END.enter_context(kernels().graphs(gradients)) if job["graph"] else gradients

    def step() -> None:
        for p, g in zip(parameters, work(x._array, target._array), strict=True):
            p.grad = None if g is None else Tensor.wrap(g)
        scaler.step(optimizer)
        scaler.update()

    return step


# -- layers ----------------------------------------------------------------------------------------------------------------------------


class Recording(Kernels):
    """Kernels that note every convolution that they are asked for."""

    seen: list[dict[str, Any]]

    def note(self, kind: str, x_shape: tuple[int, ...], y_shape: tuple[int, ...], window: Window, groups: int) -> None:
        self.seen.append(
            {
                "kind": kind, "x": list(x_shape), "y": list(y_shape), "kernel": window.kernel, "stride": window.stride,
                "padding": window.padding, "dilation": window.dilation, "groups": groups,
            }
        )  # fmt: skip

    def conv2d(self, x: Array, w: Array, bias: Array | None, window: Window, out: tuple[int, int], groups: int = 1) -> Array:
        self.note("conv2d", x.shape, (len(x), len(w), *out), window, groups)
        return super().conv2d(x, w, bias, window, out, groups)

    def conv2d_affine(
        self, x: Array, w: Array, scale: Array, offset: Array, relu: bool, window: Window, out: tuple[int, int], groups: int = 1
    ) -> Array:
        noted = len(self.seen)
        y = super().conv2d_affine(x, w, scale, offset, relu, window, out, groups)
        if len(self.seen) == noted:  # it is a kernel of its own, not made of conv2d
            self.note("conv2d", x.shape, (len(x), len(w), *out), window, groups)
        return y

    def conv_transpose2d(self, y: Array, w: Array, bias: Array | None, window: Window, size: tuple[int, int], groups: int = 1) -> Array:
        self.note("conv_transpose2d", (len(y), w.shape[1] * groups, *size), y.shape, window, groups)
        return super().conv_transpose2d(y, w, bias, window, size, groups)

    def conv2d_weight(self, x: Array, y: Array, window: Window, groups: int = 1) -> Array:
        self.note("conv2d_weight", x.shape, y.shape, window, groups)
        return super().conv2d_weight(x, y, window, groups)


class Recorder(Recording, CpuKernels):
    """The CPU kernels, recording."""


class GpuRecorder(Recording, CudaKernels):
    """The CUDA kernels, recording."""


def record(run: Run) -> list[dict[str, Any]]:
    """The convolutions of one run, in order."""
    own = kernels()
    recorder = GpuRecorder(own.xp, precision=own.precision) if isinstance(own, CudaKernels) else Recorder()
    recorder.seen = []
    with use_kernels(recorder):
        run()
    return recorder.seen


def layer(item: dict[str, Any]) -> Run:
    """One convolution, on normal random numbers, as the peer has: what numbers are decides how fast a GPU is."""
    rng, own = np.random.default_rng(0), kernels()
    window = Window.of(item["kernel"], item["stride"], item["padding"], item["dilation"])

    def images(shape: list[int]) -> Array:
        n, c, h, w = shape
        return to_backend(nchw(normal(rng, (n, h, w, c)).astype(image_dtype(), copy=False)))

    x, y, groups = images(item["x"]), images(item["y"]), item["groups"]
    w = images([y.shape[1], x.shape[1] // groups, *window.kernel])
    size, out = (x.shape[2], x.shape[3]), (y.shape[2], y.shape[3])
    if item["kind"] == "conv2d":
        return lambda: own.conv2d(x, w, None, window, out, groups)
    if item["kind"] == "conv_transpose2d":
        return lambda: own.conv_transpose2d(y, w, None, window, size, groups)
    return lambda: own.conv2d_weight(x, y, window, groups)


# -- the machine -----------------------------------------------------------------------------------------------------------------------


def peak_memory() -> int:
    """The most bytes that this process ever had resident."""
    import resource  # which `measure` has looked for

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def machine(precision: str = "float32") -> dict[str, float]:
    """The roofline: GFLOP/s of products that stay in the nearest cache, of bf16 or float32; GB/s of a copy (read and written); on all threads."""
    from ..backend.cpu import tiles
    from ..backend.cpu.threads import num_threads, parallel

    calls = 64 * num_threads()
    flops, products = _tile_products() if precision == "bf16" and tiles.TILES else _products(2 if precision == "bf16" else 1)
    source, target = (np.ones(1 << 26, np.float32) for _ in range(2))
    part = source.size // 64

    def copies(start: int, stop: int) -> None:
        target[start * part : stop * part] = source[start * part : stop * part]

    return {
        "threads": num_threads(),
        "gflops": flops * calls / fastest(lambda: parallel(products, calls)) / 1e9,
        "gigabytes": 2 * source.nbytes / fastest(lambda: parallel(copies, 64)) / 1e9,
    }


def _products(per: int) -> tuple[int, Callable[[int, int], None]]:
    """Operations of a call, and calls from one number to another, of products on vectors, `per` numbers in one place."""
    from ..backend.cpu.instructions import LANES
    from ..backend.cpu.matmul import multiply
    from ..backend.cpu.vector import ROWS

    k, rows, columns = 256, 64 * ROWS[-1], 4 * LANES
    a, b = np.ones((ROWS[-1], k), np.float32), np.ones((k, columns), np.float32)

    def some(start: int, stop: int) -> None:
        c = np.empty((ROWS[-1], columns), np.float32)
        for _ in range(start, stop):  # rows 0 apart: the same block again and again
            multiply(a.ctypes.data, 0, 0, 1, b.ctypes.data, c.ctypes.data, 0, k, rows, 4, 0, 1 if per == 2 else None)

    return 2 * per * rows * columns * k, some


def _tile_products() -> tuple[int, Callable[[int, int], None]]:
    """The same of products in bf16 on tiles."""
    from ..backend.cpu.memory import empty
    from ..backend.cpu.tiled_loops import PANEL, same_block

    k, times = 64, 256
    a, b = (empty((PANEL * k,)) for _ in range(2))
    a[...] = b[...] = 1

    def some(start: int, stop: int) -> None:
        c = empty((PANEL * PANEL,))
        for _ in range(start, stop):
            same_block(a.ctypes.data, b.ctypes.data, c.ctypes.data, k, times)

    return 2 * 2 * PANEL * PANEL * k * times, some


def fastest(run: Run) -> float:
    """Seconds of the fastest of ten runs."""
    return min(timed(run) for _ in range(10))


if __name__ == "__main__":
    main()
