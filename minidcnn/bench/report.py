"""What was measured, in words."""

from __future__ import annotations

from typing import Any


def text(result: dict[str, Any]) -> str:
    """The result of `measure` as a few lines to read."""
    n, c, h, w = result["shape"]
    again = ", results computed again instead of kept" if result["recompute"] else ""
    precision = result["precision"] if result["backend"] == "cupy" or result["precision"] not in ("tf32x3", "tf32") else "float32"
    how = precision if result["backend"] == "numpy" else f"{precision} on a GPU{', as a graph' if result['graph'] else ''}"
    lines = [f"{result['net']}, first layer {result['base']} channels, images {n}x{c}x{h}x{w}, {how}{again}"]
    if "machine" in result:
        m = result["machine"]
        who = f"this machine: {m['threads']:.0f} threads" if "threads" in m else f"this GPU: {m['name']}"
        lines.append(f"{who}, at most {m['gflops']:.0f} GFLOP/s and {m['gigabytes']:.1f} GB/s")
    what = result["what"]
    if what in ("step", "infer"):
        name = "training step" if what == "step" else "inference"
        lines.append(
            f"{name}: {1e3 * result['seconds']:.1f} ms, {result['gflop']:.1f} GFLOP in convolutions by the definition, {result['gflops']:.0f} a second"
        )
    if "constant_gain" in result:
        lines.append(f"with nn.constant_weights: {1e3 * result['constant_seconds']:.1f} ms, {result['constant_gain']:.2f} times as fast")
    if what == "layers":
        lines += _table(result)
    if what == "kernels":
        lines += _launches(result)
    if what == "sweep":
        lines += _points(result)
    if what == "memory":
        lines.append(f"most memory: {result['peak'] / 1e6:.0f} MB")
    if what == "cold":
        for name in ("cold", "warm", "other"):
            if name in result:
                of = {"cold": "nothing compiled", "warm": "compiled before", "other": str(result["peer"])}[name]
                v = result[name]
                lines.append(
                    f"{of}: import {v['import']:.2f} s, first step {v['first']:.2f} s, later ones {v['later']:.2f} s (first is {v['extra']:+.2f} s)"
                )
    if "ratio" in result:
        lines.append(
            f"{result['peer']}: {1e3 * result['peer_seconds']:.1f} ms ({result['peer_format']}); ours is {result['ratio']:.2f} times as fast"
        )
    if "share" in result:
        lines.append(f"{result['peer']}: {result['peer_peak'] / 1e6:.0f} MB; ours needs {result['share']:.2f} of that")
    return "\n".join(lines)


def _table(result: dict[str, Any]) -> list[str]:
    """One line for each kind of layer, the most expensive first."""
    head = f"{'convolution':<17} {'N,C,H,W -> N,O,H,W':<40} {'window':<14} {'times':>5} {'ms':>8} {'GFLOP/s':>8}"
    lines = [head + (f" {'peer ms':>8} {'ratio':>6}" if result["peer"] else "")]
    for v in sorted(result["layers"], key=lambda v: -v["seconds"] * v["times"]):
        x, y = (",".join(map(str, v[k])) for k in "xy")
        window = "{}x{}/{} p{}".format(*v["kernel"], v["stride"][0], v["padding"][0])
        line = f"{v['kind']:<17} {x + ' -> ' + y:<40} {window:<14} {v['times']:>5} {1e3 * v['seconds']:>8.2f} {v['gflops']:>8.0f}"
        lines.append(line + (f" {1e3 * v['peer_seconds']:>8.2f} {v['ratio']:>6.2f}" if "ratio" in v else ""))
    ours, theirs = (sum(v.get(side, 0) * v["times"] for v in result["layers"]) for side in ("seconds", "peer_seconds"))
    lines.append(
        f"all of them: {1e3 * ours:.2f} ms"
        + (f"; {result['peer']}: {1e3 * theirs:.2f} ms, ours are {theirs / ours:.2f} times as fast" if result["peer"] else "")
    )
    return lines


def _launches(result: dict[str, Any]) -> list[str]:
    """One line for each kernel, the slowest first: what it achieves, and the part of what a copy or a matrix product achieves here."""
    m, own = result["machine"], sum(v["seconds"] for v in result["kernels"])
    lines = [f"{'kernel':<20} {'launches':>8} {'ms':>9} {'GB/s':>8} {'of copy':>8} {'GFLOP/s':>9} {'of GEMM':>8}"]
    for v in result["kernels"]:
        speed, work = (v[key] / max(v["seconds"], 1e-12) / 1e9 for key in ("bytes", "operations"))
        flops = f" {work:>9.0f} {work / m['gflops']:>8.0%}" if work else ""
        lines.append(f"{v['kernel']:<20} {v['launches']:>8} {1e3 * v['seconds']:>9.3f} {speed:>8.0f} {speed / m['gigabytes']:>8.0%}{flops}")
    if result["kernels"]:
        whole = result["kernels"][0]["of"]
        lines.append(f"these kernels: {1e3 * own:.3f} ms of {1e3 * whole:.3f} ms that the step took while each was timed")
    return lines


def _points(result: dict[str, Any]) -> list[str]:
    """One line for each shape of images, the cheapest first."""
    peer = f" {result['peer']:>10} {'ratio':>6}" if result["peer"] else ""
    lines = ["microseconds of a training step for each pixel of its images", f"{'N,C,H,W':<18} {'ms':>9} {'us a pixel':>10}{peer}"]
    for v in result["points"]:
        line = f"{','.join(map(str, v['shape'])):<18} {1e3 * v['seconds']:>9.1f} {v['microseconds']:>10.2f}"
        lines.append(line + (f" {v['peer_microseconds']:>10.2f} {v['ratio']:>6.2f}" if "ratio" in v else ""))
    return lines
