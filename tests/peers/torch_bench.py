"""The process that measures PyTorch for `python -m minidcnn bench --peer torch`; see minidcnn/bench/worker.py for what it is asked.

The networks are those that the tests compare ours with.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def answer(**values: Any) -> None:
    print(json.dumps(values), flush=True)


try:
    import torch
except ImportError:
    answer(error='--peer torch needs PyTorch, which is not installed: pip install -e ".[test,bench]"')
    sys.exit()
IMPORTED = time.perf_counter() - START

from test_models_torch import TorchFCN, TorchSegNet, TorchUNet  # noqa: E402

ON_GPU = False


def settle(job: dict[str, Any]) -> str:
    """Choose the device and its precision, as the job asks; what is missing for that, or ""."""
    global ON_GPU
    if job["backend"] != "cupy":
        return ""
    if not torch.cuda.is_available():
        return "--peer torch with --backend cupy needs a PyTorch that is built for CUDA and finds the GPU"
    ON_GPU = True
    torch.set_default_device("cuda")
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = job["precision"] not in ("float32", "tf32x3")
    return ""


def casting(job: dict[str, Any]) -> Any:
    """Mixed precision as PyTorch does it, for bf16 and float16."""
    kinds = {"bf16": torch.bfloat16, "float16": torch.float16} if ON_GPU else {"bf16": torch.bfloat16}
    kind = kinds.get(job["precision"], torch.bfloat16)
    return torch.autocast("cuda" if ON_GPU else "cpu", kind, enabled=job["precision"] in kinds)


def timed(run: Callable[[], object]) -> float:
    """Seconds, by the clock of whatever computes."""
    if not ON_GPU:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3


def peak() -> int:
    if ON_GPU:
        return torch.cuda.max_memory_reserved()
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def network(job: dict[str, Any], memory: Any) -> Callable[[], None]:
    """One training step, or one inference."""
    n, c, h, w = job["shape"]
    classes, base = job["classes"], job["base"]
    make = {
        "unet": lambda: TorchUNet(c, classes, base, "same", "batch", False),
        "segnet": lambda: TorchSegNet(c, classes, base),
        "fcn8s": lambda: TorchFCN("8s", c, classes, base),
    }
    model = make[job["net"]]().to(memory_format=memory)
    if job["format"] == "compiled":
        model = torch.compile(model)
    x = torch.rand(n, c, h, w).to(memory_format=memory)
    if job["what"] == "infer":
        model.eval()

        def infer() -> None:
            with torch.inference_mode(), casting(job):
                model(x)

        return infer
    target = torch.randint(0, classes, (n, h, w))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    scaler = torch.amp.GradScaler("cuda", enabled=ON_GPU and job["precision"] == "float16")

    def step() -> None:
        with casting(job):
            loss = torch.nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def layer(item: dict[str, Any], memory: Any, dtype: Any) -> Callable[[], Any]:
    """One convolution, or one of its two gradients."""
    x, y = (torch.randn(item[k]).to(dtype, memory_format=memory) for k in "xy")
    stride, padding, dilation, groups = (item[k] for k in ("stride", "padding", "dilation", "groups"))
    w = torch.randn(y.shape[1], x.shape[1] // groups, *item["kernel"]).to(dtype, memory_format=memory)
    if item["kind"] == "conv2d":
        return lambda: torch.nn.functional.conv2d(x, w, None, stride, padding, dilation, groups)
    wanted = [item["kind"] == "conv_transpose2d", item["kind"] == "conv2d_weight", False]
    return lambda: torch.ops.aten.convolution_backward(y, x, w, None, stride, padding, dilation, False, [0, 0], groups, wanted)


def main() -> None:
    job = json.loads(sys.argv[1])
    if missing := settle(job):
        answer(error=missing)
        return
    if threads := os.environ.get("MINIDCNN_NUM_THREADS"):  # as many as we use
        torch.set_num_threads(int(threads))
    memory = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last, "compiled": torch.channels_last}[job["format"]]
    kinds = {"bf16": torch.bfloat16, "float16": torch.float16 if ON_GPU else torch.float32}  # as its layers have them under autocast
    dtype = kinds.get(job["precision"], torch.float32)
    runs = [layer(item, memory, dtype) for item in job["layers"]] if job.get("layers") else [network(job, memory)]
    answer(imported=IMPORTED)
    for line in sys.stdin:
        command, *which = line.split()
        if command == "run":
            run = runs[int(which[0]) if which else 0]
            answer(seconds=timed(run))
        elif command == "memory":
            answer(peak=peak())


if __name__ == "__main__":
    main()
