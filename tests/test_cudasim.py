"""The simulator is honest: it finds the bugs that are planted, in our kernels and in small ones, and nothing in the sound ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cudasim import SimError, SimModule
from cudasim.build import why_not
from simulated import simulated

from minidcnn.backend import AxisMap, Kernels
from minidcnn.backend.cuda import CudaKernels
from minidcnn.backend.cuda.source import folder, source
from minidcnn.backend.rules import AdamRule, SgdRule
from minidcnn.window import Window

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

Array = np.ndarray[Any, Any]
WINDOW, SIZE, OUT = Window((3, 2), (2, 1), (1, 1), (1, 2)), (7, 9), (4, 9)
RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((2, 5, *SIZE)).astype(np.float32), RNG.standard_normal((7, 5, 3, 2)).astype(np.float32)
Y = RNG.standard_normal((2, 7, *OUT)).astype(np.float32)
P = RNG.standard_normal((2, 5, *OUT)).astype(np.float32)
LARGE_X, LARGE_Y = (RNG.standard_normal((2, c, h, 16)).astype(np.float32) for c, h in ((3, 19), (4, 10)))
WIDE, LABELS = RNG.standard_normal((2, 40, 7, 14)).astype(np.float32), RNG.integers(-1, 40, (2, 7, 14))
POOLED = Window((3, 3), (2, 2), (1, 1))
X16, W16, Y12 = (RNG.standard_normal(shape).astype(np.float32) for shape in ((2, 16, *SIZE), (12, 16, 3, 2), (2, 12, *OUT)))
TAPS = Kernels(np).max_pool2d(X16, Window((2, 2), (2, 2)), (3, 4))[1]
W8, W2 = (RNG.standard_normal((o, c, 3, 2)).astype(np.float32) for o, c in ((12, 8), (24, 2)))  # two groups by tiles, eight without
Y24 = RNG.standard_normal((2, 24, *OUT)).astype(np.float32)
BY_CHANNEL = np.linspace(-1, 2, 7, dtype=np.float32)
DOUBLED = AxisMap(7, np.arange(0, 19, 2), np.arange(18) * 5 % 7, np.arange(18) / 4)
AT = RNG.integers(0, 6, P.shape)  # few targets, many sources each
LONG, LONG_ALSO = RNG.standard_normal((2, 2, 40, 13, 16)).astype(np.float32)  # rows for shares of unequal size
BY_40 = LONG.mean((0, 2, 3), "float64"), 1 / LONG.std((0, 2, 3), dtype="float64"), np.linspace(-1, 2, 40, dtype=np.float32)


def as_precision(kernels: Kernels, precision: str) -> Kernels:
    """The same kernels on tensor cores, if they are CUDA kernels."""
    if isinstance(kernels, CudaKernels):
        kernels.precision = precision
    return kernels


def in_tall_tiles(kernels: Kernels) -> Kernels:
    """The same kernels with tiles of 128 x 64, if they are CUDA kernels."""
    if isinstance(kernels, CudaKernels):
        kernels.tile = lambda *_: ((128, 64), ("SMALL=1", "TALL=1", "TENSOR=0"))  # type: ignore[method-assign]
    return kernels


def stepped(kernels: Kernels, optimizer: str) -> Array:
    """Three parameters after two steps, one after the other: less than a block, several blocks, and a few elements."""
    rng, rows, settings = np.random.default_rng(1), [], []
    for i, size in enumerate((40, 9000, 7)):
        rows.append([rng.random(size, np.float32) for _ in range(5 if optimizer == "adam" else 3)])
        adam = 1 + i, AdamRule(0.1 * (i + 1), 0.9, 0.99, 1e-3, 0.1, i == 1)
        settings.append(adam if optimizer == "adam" else (i == 1, SgdRule(0.1, 0.9, 0.2, 0.1)))
    for _ in range(2):
        steps = [(*row, *numbers) for row, numbers in zip(rows, settings, strict=True)]
        kernels.adam_steps(steps) if optimizer == "adam" else kernels.sgd_steps(steps)
    return np.concatenate([a for row in rows for a in row])


def scaled(kernels: Kernels) -> Array:
    """Three gradients times 3, and whether they were finite: in two blocks one is not, each the first of its thread's numbers."""
    arrays = [np.random.default_rng(1).random(size, np.float32) for size in (40, 9000, 7)]
    arrays[1][[4096 + 3, 8192 + 5]] = np.inf
    finite = kernels.scale_all(arrays, 3.0, look=True)
    return np.concatenate([*arrays, [bool(finite)]])


def norms(kernels: Kernels) -> Array:
    """Sums of the powers of five gradients and more than their threads and blocks; then with NaN, of one block's last thread, the largest."""
    arrays = [np.random.default_rng(1).random(size, np.float32) - 0.5 for size in (40, 9000, 4096, 513, 7)]
    found = [kernels.power_sum(arrays, power) for power in (1.0, 2.0, 3.0, np.inf)]
    arrays[1][4096 + 255] = np.nan
    return np.array(
        [*map(float, found), float(np.isnan(kernels.power_sum(arrays, np.inf))), float(np.isnan(kernels.power_sum(arrays, 2.0)))]
    )


def tracked(kernels: Kernels, momentum: Any) -> Array:
    """rstd and running statistics of 40 channels."""
    running = np.linspace(1, 2, 40), np.linspace(3, 4, 40)
    return np.stack([kernels.batch_norm_track(*BY_40[:2], 5, 0.1, momentum, *running), *running])


def entropy_grad() -> tuple[Array, ...]:
    losses, top, logs = Kernels(np).cross_entropy(WIDE, LABELS, np.arange(40, dtype=np.float32), 0.3)
    return np.ones_like(losses), WIDE, top, logs, LABELS


def confusion(kernels: Kernels, classes: int) -> Array:
    """Counts of 20000 pixels, a third of one pair, some ignored and some wrong, added to ones; and where the first wrong one is."""
    rng = np.random.default_rng(2)
    truth, prediction = rng.integers(-1, classes + 1, 20000), rng.integers(0, classes, 20000)
    truth[::3], prediction[::3], truth[::7] = 1, 2, 255
    truth[:200] = 0
    matrix = np.ones((classes, classes), np.int64)
    first = kernels.count_pairs(matrix, truth, prediction, 255)
    return np.append(matrix, first)


RUNS: dict[str, Callable[[Kernels], Any]] = {
    "forward": lambda k: k.conv2d(X, W, None, WINDOW, OUT),
    "affine": lambda k: k.conv2d_affine(X, W, BY_CHANNEL, BY_CHANNEL[::-1].copy(), True, WINDOW, OUT),
    "tf32": lambda k: as_precision(k, "tf32").conv2d(X, W, None, WINDOW, OUT),
    "bf16": lambda k: as_precision(k, "bf16").conv2d(X, W, None, WINDOW, OUT),
    "copies": lambda k: k.conv2d(X16, W16, None, WINDOW, OUT),  # six steps through a ring of three stages
    "copies of few": lambda k: k.conv2d(X16[:, :4].copy(), W16[:, :4].copy(), None, WINDOW, OUT),  # two steps
    "copies, tf32": lambda k: as_precision(k, "tf32").conv2d(X16, W16, None, WINDOW, OUT),
    "copies to gradients": lambda k: k.conv_transpose2d(Y12, W16, None, WINDOW, SIZE),
    "copies of a weight": lambda k: k.conv2d_weight(X16, Y12, WINDOW),
    "transposed": lambda k: k.conv_transpose2d(Y, W, None, WINDOW, SIZE),
    "weight": lambda k: k.conv2d_weight(LARGE_X, LARGE_Y, WINDOW),  # more than 256 positions: in parts
    "groups": lambda k: k.conv2d(X16, W8, None, WINDOW, OUT, 2),
    "groups to gradients": lambda k: k.conv_transpose2d(Y12, W8, None, WINDOW, SIZE, 2),
    "few channels of a weight": lambda k: in_tall_tiles(k).conv2d_weight(X16, Y12, WINDOW),
    "groups of a weight": lambda k: k.conv2d_weight(X16, Y12, WINDOW, 2),
    "direct": lambda k: k.conv2d(X16, W2, None, WINDOW, OUT, 8),
    "direct to gradients": lambda k: k.conv_transpose2d(Y24, W2, None, WINDOW, SIZE, 8),
    "direct weight": lambda k: k.conv2d_weight(X16, Y24, WINDOW, 8),
    "im2col": lambda k: k.im2col(X, WINDOW, OUT),
    "col2im": lambda k: k.col2im(Kernels(np).im2col(X, WINDOW, OUT), WINDOW, SIZE),
    "max_pool": lambda k: k.max_pool2d(X, POOLED, (4, 5))[0],
    "pool_scatter": lambda k: k.pool_scatter(P, np.zeros(P.shape, np.uint8), WINDOW, SIZE),
    "pool of runs": lambda k: k.max_pool2d(X16, Window((2, 2), (2, 2)), (3, 4))[0],
    "three by three": lambda k: k.max_pool2d(X16, Window((3, 3), (2, 2)), (3, 4))[0],
    "scatter of runs": lambda k: k.pool_scatter(X16[:, :, :3, :4].copy(), TAPS, Window((2, 2), (2, 2)), SIZE),
    "resample": lambda k: k.resample(X16, DOUBLED, DOUBLED.transposed) + k.resample(X16[:, :3], DOUBLED, DOUBLED.transposed).sum(),
    "gather": lambda k: k.gather(X, AT),
    "scatter": lambda k: k.scatter(P, AT, (2, 3)),
    "mean of runs": lambda k: k.avg_pool2d(X16, POOLED, np.ones((4, 5), np.float32)),
    "avg_pool": lambda k: k.avg_pool2d(X, POOLED, np.ones((4, 5), np.float32)),
    "moments": lambda k: np.stack(k.batch_norm_stats(LONG[:, :37])),
    "moments of runs": lambda k: np.stack(k.batch_norm_stats(LONG)),
    "normalize_grad": lambda k: k.batch_norm_grad(LONG, LONG, *np.ones((3, 40), np.float32))[0],
    "weighted": lambda k: np.stack(k.batch_norm_grad(LONG, LONG_ALSO, *BY_40)[1:]),
    "gated": lambda k: k.batch_norm_grad(LONG, LONG_ALSO, *BY_40, BY_40[0].astype(np.float32))[0],
    "track": lambda k: tracked(k, 0.25),
    "tracked by rate": lambda k: tracked(k, np.array(0.25)),
    "sum": lambda k: k.sum(LONG, (0, 2, 3)),
    "cross_entropy": lambda k: k.cross_entropy(WIDE, LABELS, np.ones(40, np.float32), 0.1)[0],
    "relu": lambda k: k.relu(WIDE[:, :, :, 1:].copy()),
    "slope": lambda k: k.relu_grad(WIDE, np.roll(WIDE, 1)),
    "dropout": lambda k: k.dropout(WIDE, 0.5, 7, (2, 40, 1, 1)) + k.dropout(WIDE, 0.5, 8, WIDE.shape),
    "smoothing": lambda k: k.cross_entropy_grad(*entropy_grad(), np.arange(40, dtype=np.float32), 0.3),
    "clean_target": lambda k: (
        k.clean_target(LABELS + 1, 38, int(LABELS.flat[0]) + 1)[0] * 100 + k.clean_target(LABELS + 1, 38, int(LABELS.flat[0]) + 1)[1]
    ),
    "confusion": lambda k: confusion(k, 6),
    "confusion of many": lambda k: confusion(k, 120),
    "sgd": lambda k: stepped(k, "sgd"),
    "adam": lambda k: stepped(k, "adam"),
    "scaled": scaled,
    "norms": norms,
}

EXACT = {"rtol": 1e-4, "atol": 1e-5}
TOLERANCE = {
    "tf32": {"rtol": 1e-2, "atol": 1e-2},
    "bf16": {"rtol": 5e-2, "atol": 1e-1},
    "copies, tf32": {"rtol": 2e-2, "atol": 2e-2},
}  # the factors are rounded

# what is wrong -> (run, text of a source, what stands there instead)
PLANTED: dict[str, tuple[str, str, str]] = {
    "the barrier before a stage is dropped": ("forward", "__syncthreads();  // now all", "// now all"),
    "one stage of shared memory for all": ("forward", "stage = stage + 1 == STAGES ? 0 : stage + 1;", "stage = 0;"),
    "a stage is written while it is read": ("weight", "feed_b.put({bs[to]})", "feed_b.put({bs[stage]})"),
    "a carry is lost": ("forward", "if (++d.mid == mids) {", "if (++d.mid > mids) {"),
    "a carry comes late": ("copies of a weight", "d.low >= lows; d.low", "d.low > lows; d.low"),
    "the shared panels are too short": ("forward", "as[STAGES][BM * BK]", "as[STAGES][BM * BK / 2]"),
    "copies: the barrier comes before the wait": (
        "copies",
        "            if constexpr (ASYNC) copies_wait<STAGES - 2>();\n            this->settle();\n            __syncthreads();",
        "            this->settle();\n            __syncthreads();\n            if constexpr (ASYNC) copies_wait<STAGES - 2>();",
    ),
    "copies: one group too many may be under way": ("copies", "copies_wait<STAGES - 2>", "copies_wait<STAGES - 1>"),
    "copies: the last groups are not counted": (
        "copies of few",
        "            if constexpr (ASYNC) copies_commit();  // of nothing",
        "            if (ASYNC && next < k_end) copies_commit();  // of nothing",
    ),
    "copies: a stage is overwritten before the barrier": (
        "copies",
        "__syncthreads();  // now all",
        "if (k0 == k_begin) __syncthreads();  // now all",
    ),
    "copies: into the stage that is read": ("copies to gradients", "feed_a.fetch({as[to]})", "feed_a.fetch({as[stage]})"),
    "copies: padding is copied, not zero": ("copies", "from ? from : operand.data, !from)", "from ? from : operand.data, false)"),
    "copies: zeros instead of numbers": ("copies of a weight", "from ? from : operand.data, !from)", "from ? from : operand.data, true)"),
    "copies: one k beyond the last": ("copies of a weight", "within = q * STEP < ks;", "within = q * STEP <= ks;"),
    "copies: a run that begins one number late": (
        "copies",
        "const Real* find(Outer row, Inner k) const { return data + row + k; }",
        "const Real* find(Outer row, Inner k) const { return data + row + k + 1; }",
    ),
    "copies: lines are read where they would lie without their exchange": (
        "copies",
        "return at(row, k) + step * BK;",
        "return data + (row + step) * BK + k;",
    ),
    "copies: the stages of shared memory overlap": ("copies", "bs[STAGES][BN * BK]", "bs[STAGES][BN * BK - LINE]"),
    "the scale of another channel": ("affine", "v *= scale[channel]", "v *= scale[0]"),
    "the offset is scaled as well": (
        "affine",
        "if (scale) v *= scale[channel];\n        if (offset) v += offset[channel];",
        "if (offset) v += offset[channel];\n        if (scale) v *= scale[channel];",
    ),
    "ReLU is forgotten": ("affine", "relu && v <= Sum(0) ? Sum(0) : v", "v"),
    "results beyond the last position are written": ("forward", "if (m >= positions || o >= outputs)", "if (o >= outputs)"),
    "results beyond the last channel are written": ("forward", "if (m >= positions || o >= outputs)", "if (m >= positions)"),
    "neighbours beyond the last channel are written": ("tf32", "if (s < left) to[s] = make(s);", "to[s] = make(s);"),
    "neighbours are stored together though channels are odd": ("tf32", "(pitch | first | width) % NEXT == 0 &&", ""),
    "all parts of a weight gradient share one place": ("weight", "parts + (part * channels + first) * columns", "parts + first * columns"),
    "parts of a weight gradient overlap": ("weight", "min(begin + share, positions)", "min(begin + share + 1, positions)"),
    "groups: the first one's images for all": ("groups", "x, group * inputs, inputs}, Matrix", "x, 0, inputs}, Matrix"),
    "groups: the first one's weights for all": ("groups", "Matrix{w, first, depth}", "Matrix{w, 0, depth}"),
    "groups: all write into the first one": ("groups", "y + (m * channels + first + o)", "y + (m * channels + o)"),
    "groups: the first one's gradients for all": ("groups to gradients", "y + group * outputs, channels", "y, channels"),
    "groups: the first one's weights in all gradients": ("groups to gradients", "w + group * outputs * g.kh * g.kw * inputs", "w"),
    "groups: all gradients in the first one": ("groups to gradients", "* g.c + first;", "* g.c;"),
    "groups: counted as phases": ("groups to gradients", "phase = blockIdx.z - group * phases", "phase = blockIdx.z % g.sw"),
    "groups: a weight from the first one's images": (
        "groups of a weight",
        "images{g, x, group * inputs,",
        "images{g, x, 0,",
    ),
    "groups: a weight from the first one's gradients": ("groups of a weight", "gradients{y + first,", "gradients{y,"),
    "groups: all weights in the first one": ("groups of a weight", "(part * channels + first) * columns", "part * channels * columns"),
    "few output channels: rows and columns of a weight as if not exchanged": (
        "few channels of a weight",
        "int k = tile.row(i), o = tile.column(j);",
        "int o = tile.row(i), k = tile.column(j);",
    ),
    "groups: counted as parts": (
        "groups of a weight",
        "group = blockIdx.z % groups, part = blockIdx.z / groups",
        "group = 0, part = blockIdx.z",
    ),
    "direct: the first group's images for all": ("direct", "first = o / outputs * inputs;", "first = 0;"),
    "direct: a group as wide as its results": ("direct", "first = o / outputs * inputs;", "first = o / outputs * outputs;"),
    "direct: weights of the next result": ("direct", "Sum(weight[c * channels])", "Sum(weight[c])"),
    "direct: padding is read": ("direct", "if (v < 0 || v >= g.w) continue;\n                const", "const"),
    "direct: gradients of the wrong group": ("direct to gradients", "first = c / inputs * outputs;", "first = c / inputs * inputs;"),
    "direct: taps in the order of windows": ("direct to gradients", "(a * g.kw + b) * outputs * g.c", "(b * g.kh + a) * outputs * g.c"),
    "direct: a weight from the first group's images": ("direct weight", "c = o / outputs * inputs + t % inputs", "c = t % inputs"),
    "direct: a weight's taps and channels exchanged": ("direct weight", "b = t / inputs % g.kw", "b = t % g.kw"),
    "direct: a weight beyond the last": ("direct weight", "if (o >= channels || t >= depth) return;", "if (t >= depth) return;"),
    "direct: all parts of a weight share one place": ("direct weight", "parts[(blockIdx.z * depth + t)", "parts[t"),
    "direct: a weight's rows beyond its part": ("direct weight", "min((int)(blockIdx.z + 1) * share, g.n * g.oh)", "g.n * g.oh"),
    "direct: a weight's windows beyond the last": (
        "direct weight",
        "last(min(divide_up(max(size + padding - tap * dilation, 0), stride), positions))",
        "last(divide_up(max(size + padding - tap * dilation, 0), stride))",
    ),
    "direct: a weight's windows in the padding": (
        "direct weight",
        "first(divide_up(max(padding - tap * dilation, 0), stride))",
        "first(0)",
    ),
    "padding above the image is not tested": ("forward", "return h >= 0 && h < g.h", "return h < g.h"),
    "padding below the image is not tested": ("max_pool", "if (h < 0 || h >= g.h) continue;", "if (h < 0) continue;"),
    "a tap of the wrong phase": ("transposed", "a = ph.tap + t.high * ph.step", "a = ph.tap + t.high"),
    "the kernel flipped": (
        "transposed",
        "t.high * ph.step, b = pw.tap + t.mid * pw.step",
        "(ph.taps - 1 - t.high) * ph.step, b = pw.tap + (pw.taps - 1 - t.mid) * pw.step",
    ),
    "the loop runs one element too far": ("dropout", "i < (count); i +=", "i <= (count); i +="),
    "padding counted on the wrong side": ("col2im", "columns(j + g.pw, g.sw", "columns(j - g.pw, g.sw"),
    "positions after the last count": ("col2im", "i(min(p / stride, positions - 1))", "i(p / stride)"),
    "stride and dilation exchanged": ("col2im", "% g.h + g.ph, g.sh, g.oh)", "% g.h + g.ph, g.dh, g.oh)"),
    "the last maximum wins instead of the first": ("max_pool", "value.at[i] > best.at[i] ||", "value.at[i] < best.at[i] ||"),
    "every window gives, not only the one that won": ("pool_scatter", "if ((int)won.at[i] == a * g.kw + b) total", "total"),
    "every tap begins anew": ("pool of runs", "any = true;", ""),
    "a run's first winner for all of it": ("scatter of runs", "won.at[i] == a", "won.at[0] == a"),
    "runs begin at every channel": (
        "pool of runs",
        "(blockIdx.z * blockDim.x + threadIdx.x) * RUN; c",
        "blockIdx.z * blockDim.x + threadIdx.x; c",
    ),
    "as many runs as channels": ("pool of runs", "gridDim.z * blockDim.x * RUN)", "gridDim.z * blockDim.x)"),
    "a usual window's kernel is the stride's": ("three by three", "oh_, ow_, WINDOW}", "oh_, ow_, sh_, sw_, sh_, sw_, ph_, pw_, dh_, dw_}"),
    "the last window beyond the edge": ("pool_scatter", "min(p / stride, positions - 1)", "p / stride"),
    "the rows of one image for all": ("pool_scatter", "(int)blockIdx.x / g.h * g.oh", "0"),
    "a block for the first row only": ("max_pool", "top = (int)blockIdx.x % g.oh", "top = 0 % g.oh"),
    "every thread takes the first column": ("max_pool", "blockIdx.y * blockDim.y + threadIdx.y; j", "blockIdx.y * blockDim.y; j"),
    "an exchange that is no atomic": (
        "scatter",
        "next[e] = atomicExch(head + ((int)blockIdx.x * p + (int)indices[e]) * channels + c, e);",
        "int* h = head + ((int)blockIdx.x * p + (int)indices[e]) * channels + c; next[e] = *h; *h = e;",
    ),
    "overwriting where indices repeat": ("scatter", "total += y[least];", "total = y[least];"),
    "rows and planes exchanged": ("gather", "y[e] = x[((int)blockIdx.x * p", "y[e] = x[((int)blockIdx.x * q"),
    "columns: the taps of one row for all": ("im2col", "int h = top + a * g.dh;\n            bool", "int h = top;\n            bool"),
    "columns: rows of taps that overlap": ("im2col", "cols[to + a * run]", "cols[to + a * g.c]"),
    "fragments: rows 8 apart exchanged": ("tf32", "m + g, i * 16 + half * 8", "m + g, i * 16 + (1 - half) * 8"),
    "fragments: halves of k exchanged in one factor": ("tf32", "fb[2] = {y[w], y[w + 1]}", "fb[2] = {y[w + 1], y[w]}"),
    "fragments: registers in the order of memory": (
        "tf32",
        "{x[i][0][w], x[i][1][w], x[i][0][w + 1], x[i][1][w + 1]}",
        "{x[i][0][w], x[i][0][w + 1], x[i][1][w], x[i][1][w + 1]}",
    ),
    "fragments: lanes transposed": (
        "bf16",
        "words(b, n + g, j * 8, k + 4 * t, y)",
        "words(b, n + t, j * 8, k + 4 * (g % 4), y)",
    ),
    "fragments: one number twice in a pair": (
        "bf16",
        "to_bf16(v[0][2 * w % 4], v[0][(2 * w + 1) % 4])",
        "to_bf16(v[0][2 * w % 4], v[0][2 * w % 4])",
    ),
    "results: columns of a pair exchanged": ("bf16", "j / 2 * 8 + j % 2 +", "j / 2 * 8 + 1 - j % 2 +"),
    "tensor cores: the first barrier is dropped": (
        "tf32",
        "__syncthreads();  // now all",
        "if (k0 != k_begin) __syncthreads();  // now all",
    ),
    "sums over rows without a barrier": ("sum", "+ j] = v[j];\n    __syncthreads();\n", "+ j] = v[j];\n"),
    "sums over rows overtake the ones before": ("moments", "    __syncthreads();  // part[] may still be read from the call before\n", ""),
    "sums over rows in another order than they are read": (
        "moments of runs",
        "threadIdx.x * N + j] = v[j]",
        "j * blockDim.x + threadIdx.x] = v[j]",
    ),
    "a channel beyond the last": ("moments", "blockDim.x * RUN && c < channels ? c", "blockDim.x * RUN ? c"),
    "every thread writes a sum": ("moments", "thread() < blockDim.x * RUN && c < channels", "c < channels"),
    "a thread beyond the last channel looks it up": ("normalize_grad", "c = min(first, channels - RUN)", "c = first"),
    "a share without its last row": ("moments", "? min(begin + share, rows) :", "? min(begin + share, rows) - 1 :"),
    "a share that begins one row too early": ("sum", "begin(blockIdx.y * share)", "begin(max(0, (int)blockIdx.y * share - 1))"),
    "runs that overlap": ("moments of runs", "(blockIdx.x * blockDim.x + threadIdx.x) * RUN;", "blockIdx.x * blockDim.x + threadIdx.x;"),
    "a run's first number for all of it": ("gated", "x = read.x.at[j]", "x = read.x.at[0]"),
    "shares of unequal size counted alike": ("moments", "sum[0] += min(share, rows - s * share)", "sum[0] += share"),
    "shares of unequal size spread alike": ("moments", "+ min(share, rows - s * share) * (d * d)", "+ share * (d * d)"),
    "nothing is spread between shares": ("moments", "+ min(share, rows - s * share) * (d * d)", ""),
    "the mean of one row of threads": ("moments", "first + over_rows(sum) / rows", "first + sum[0] / rows"),
    "statistics of a channel beyond the last": (
        "moments",
        "end = c < channels ? shares : 0;\n    const double first",
        "end = shares;\n    const double first",
    ),
    "the last share is left out": ("sum", "each_share(end, [&](int s) { return parts", "each_share(end - 1, [&](int s) { return parts"),
    "what is read twice at the end counts twice": ("sum", "if (i + b * step < end) use", "use"),
    "rows beyond the last are read": ("moments", "read(min(i + b * step, end - 1))", "read(i + b * step)"),
    "the gradient forgets its mean": ("normalize_grad", "(slope.g[j] - b[j] - slope", "(slope.g[j] - slope"),
    "the gradient takes sums for means": ("normalize_grad", "b[j] = dbias[part.c + j] * per_row", "b[j] = dbias[part.c + j]"),
    "the slope forgets its weight": ("gated", "Sum(rstds[c + j] * double(weights[c + j]))", "Sum(rstds[c + j])"),
    "statistics of a run's first channel for all of it": ("weighted", "mean[j] = Sum(means[c + j])", "mean[j] = Sum(means[c])"),
    "products take the place of sums": ("weighted", "parts = blockIdx.y ? products : sums", "parts = blockIdx.y ? sums : products"),
    "a gate that is not there": ("normalize_grad", "if (gated && !", "if (!"),
    "the gate is always open": ("gated", "if (gated && !(affine(x, j) > Sum(0))) g[j] = 0;", ""),
    "the gate is open in the sums": (
        "gated",
        "affine, gate);\n        FOR_EACH_OF_RUN(j) {\n            sum",
        "affine, false);\n        FOR_EACH_OF_RUN(j) {\n            sum",
    ),
    "the running mean stays": ("track", "(1 - momentum) * Sum(running_mean[c]) + momentum * mean[c]", "Sum(running_mean[c])"),
    "a biased variance is tracked": ("track", "momentum * (unbiased * var[c])", "momentum * var[c]"),
    "a momentum on the device is not read": ("tracked by rate", "if (rate) momentum = rate[0];", ""),
    "a momentum that is not there is read": ("track", "if (rate) momentum", "momentum"),
    "a gradient is read where the image is": ("weighted", "run_at(x, e), run_at(g, e)", "run_at(x, e), run_at(x, e)"),
    "a pixel without a label is looked up": ("cross_entropy", "        if (y >= 0) {\n            loss", "        {\n            loss"),
    "classes and pixels exchanged": ("cross_entropy", "row = x + p * classes", "row = x + p * pixels"),
    "a run's first number of the mask for all of it": ("dropout", "% channels : e + j;", "% channels : e;"),
    "runs that begin at every element": ("slope", "e = e##_run * RUN", "e = e##_run"),
    "a run's slope closed for all of it": ("slope", "if (!(Sum(v.at[j]) > Sum(0))) slope", "if (!(Sum(v.at[0]) > Sum(0))) slope"),
    "a run's first pixel for all of it": ("resample", "weight * Sum(v.at[j])", "weight * Sum(v.at[0])"),
    "the last of an output's taps is left out": ("resample", "end = starts[i + 1];", "end = starts[i + 1] - 1;"),
    "weights are forgotten": ("resample", "weights ? weights[t] : Sum(1)", "Sum(1)"),
    "inputs and outputs exchanged": ("resample", "from = blockIdx.x * size * inner", "from = blockIdx.x * outputs * inner"),
    "what is negative stays": ("relu", "if (Sum(v.at[j]) < Sum(0)) v", "if (Sum(v.at[j]) < Sum(-1)) v"),
    "one mask for all images": ("dropout", "(e + j) / (plane * channels) * channels + (e + j) % channels", "(e + j) % channels"),
    "a label beyond the classes stays": ("clean_target", "y >= 0 && y < classes) continue;", "y >= 0) continue;"),
    "the last wrong label instead of the first": ("clean_target", "atomicMin((unsigned*)first, (unsigned)p)", "atomicMax(first, p)"),
    "an ignored label counts as wrong": ("clean_target", "if (y != ignored) atomicMin", "atomicMin"),
    "a first wrong label that is no atomic": ("clean_target", "atomicMin((unsigned*)first, (unsigned)p)", "first[0] = p"),
    "the sum of weights forgotten": ("smoothing", "(a + b * every) *", "a *"),
    "counters that begin anywhere": ("confusion", "counts[i] = 0;", ";"),
    "counting overtakes the zeroing": ("confusion", "counts[i] = 0;\n    __syncthreads();", "counts[i] = 0;"),
    "a block is read before it has counted": ("confusion", "#if PRIVATE\n    __syncthreads();", "#if PRIVATE"),
    "counters that are no atomics": (
        "confusion",
        "atomicAdd(counts + (int)t * classes + (int)p, 1u);",
        "counts[(int)t * classes + (int)p] += 1;",
    ),
    "blocks overwrite each other's counts": (
        "confusion",
        "if (counts[i]) atomicAdd((unsigned long long*)matrix + i, (unsigned long long)counts[i]);",
        "if (counts[i]) matrix[i] += counts[i];",
    ),
    "rows and columns exchanged": ("confusion of many", "matrix + t * classes + p", "matrix + p * classes + t"),
    "a class beyond the last is counted": ("confusion", "t >= classes ||", ""),
    "blocks begin at the wrong parameter": ("sgd", "<= (int)blockIdx.x) low", "< (int)blockIdx.x) low"),
    "the last parameter is never found": ("sgd", "int low = 0, high = rows - 1;", "int low = 0, high = rows - 2;"),
    "a block works on into the next parameter": (
        "sgd",
        "min(begin + share, (int)table[row * ROW])",
        "min(begin + share, (int)table[row * ROW] + 1)",
    ),
    "every block takes the whole parameter": ("adam", "min(begin + share, (int)table[row * ROW])", "(int)table[row * ROW]"),
    "settings of one parameter for all": ("adam", "settings + part.row * Rule::SETTINGS", "settings"),
    "the blocks of a parameter begin at its first element": ("sgd", "((int)blockIdx.x - (int)table[row * ROW + 1]) * share", "0 * share"),
    "the first step keeps what the buffer holds": ("sgd", "first ? d : momentum", "momentum"),
    "mean and mean square exchanged": (
        "adam",
        "mean((Real*)arrays[2]), square((Real*)arrays[3])",
        "mean((Real*)arrays[3]), square((Real*)arrays[2])",
    ),
    "only a thread's last number is asked": ("scaled", "sound = sound && v - v == Sum(0);", "sound = v - v == Sum(0);"),
    "only a block's first thread is asked": ("scaled", "!__syncthreads_and(sound)", "!sound"),
    "an answer that is no atomic": ("scaled", "atomicExch(finite, 0)", "*finite = 0"),
    "a gradient is scaled twice": ("scaled", "x[e] = Real(v * factor)", "x[e] = Real(v * factor * factor)"),
    "a thread overtakes another's sum": (
        "norms",
        "for (int half = 128; half > 0; half /= 2) {\n        __syncthreads();",
        "for (int half = 128; half > 0; half /= 2) {",
    ),
    "half of the threads are left out": ("norms", "int half = 128; half > 0", "int half = 64; half > 0"),
    "threads of the second half add too": ("norms", "if (threadIdx.x < half) part", "part"),
    "a part for all blocks": ("norms", "if (threadIdx.x == 0) parts[blockIdx.x] = total;", "if (threadIdx.x == 0) parts[0] = total;"),
    "a part keeps what was there before": ("norms", "parts[blockIdx.x] = total;", "parts[0] += total;"),
    "every thread writes the part": ("norms", "if (threadIdx.x == 0) parts[blockIdx.x] = total;", "parts[blockIdx.x] = total;"),
    "a share begins at the gradient's first element": ("norms", "((int)blockIdx.x - all.first[row]) * share", "0 * share"),
    "a share ends beyond its gradient": ("norms", "min(begin + share, all.size[row])", "begin + share"),
    "the last of a gradient's elements left out": ("norms", "min(begin + share, all.size[row])", "min(begin + share, all.size[row] - 1)"),
    "the wrong gradient": ("norms", "x = all.x[row];", "x = all.x[0];"),
    "NaN is no maximum": ("norms", "b > a || b != b ? b : a", "b > a ? b : a"),
    "only the first four parts are added up": ("norms", "i < count; i += 256", "i < count && i < 4; i += 256"),
    "a thread's last element alone": ("norms", "return total + v * v;", "return v * v;"),
    "signs are kept": ("norms", "fabs(double(Sum(x[e])))", "double(Sum(x[e]))"),
    "the average forgets its weight": ("avg_pool", "total[k] * weight[i * g.ow + j]", "total[k] * weight[j * g.ow + i]"),
    "a run's mean is its first number's": ("mean of runs", "line[k] += Sum(v.at[k])", "line[k] += Sum(v.at[0])"),
    "the last row of a window is its mean": ("avg_pool", "total[k] += line[k];", "total[k] = line[k];"),
}


def moments_of_copies(run: str) -> tuple[bool, ...]:
    """As late as allowed, and where something is copied by cp.async also at once."""
    return (True, False) if run.startswith("copies") else (True,)


@pytest.mark.parametrize("run", RUNS)
def test_sound_kernels_have_no_findings(run: str) -> None:
    for late in moments_of_copies(run):
        result = RUNS[run](simulated(mode="check", order=2, late_copies=late))
        np.testing.assert_allclose(result, RUNS[run](Kernels(np)), **TOLERANCE.get(run, EXACT))


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bugs_are_caught(bug: str) -> None:
    """Either check mode objects, or the numbers differ from the reference."""
    run, text, instead = PLANTED[bug]
    texts = [source(path.name) for path in folder().glob("*.cu")]
    assert any(text in t for t in texts), "the text to change is gone from the sources"
    expected = RUNS[run](Kernels(np))

    def caught(order: int, late: bool) -> bool:
        try:
            result = RUNS[run](simulated((text, instead), mode="check", order=order, late_copies=late))
        except RuntimeError as error:
            return bool(re.search("RACE|OUT OF BOUNDS|INVALID|UNINITIALISED|DEADLOCK|MISALIGNED|never waited for", str(error)))
        return not np.allclose(result, expected, **TOLERANCE.get(run, EXACT))

    assert any(caught(order, late) for late in moments_of_copies(run) for order in (0, 1))


# -- what the simulator says of small kernels that go wrong in one way each ----------------------------------------------------------------

WRONG: dict[str, tuple[str, str]] = {
    "race in shared memory": (
        "__shared__ float s[64]; s[threadIdx.x] = in[threadIdx.x]; out[threadIdx.x] = s[63 - threadIdx.x];",
        r"RACE \(read after write\)|UNINITIALISED",
    ),
    "race between warps after __syncwarp": (
        "__shared__ float s[64]; s[threadIdx.x] = in[threadIdx.x]; __syncwarp(); out[threadIdx.x] = s[(threadIdx.x + 32) % 64];",
        r"RACE|UNINITIALISED",
    ),
    "race between blocks": ("out[0] = in[blockIdx.x];", r"RACE \(write after write\) on global"),
    "uninitialised shared memory": ("__shared__ float s[64]; out[threadIdx.x] = s[threadIdx.x];", r"UNINITIALISED shared read"),
    "read past the end": (
        "out[threadIdx.x] = in[threadIdx.x + 1];",
        r"OUT OF BOUNDS global read of 4 bytes, 0 bytes past the end of an array of 256",
    ),
    "write before the beginning": ("out[(int)threadIdx.x - 1] = 0;", r"OUT OF BOUNDS global write of 4 bytes, 4 bytes before"),
    "overrun of a shared array": ("__shared__ float s[32]; float* p = s; p[threadIdx.x] = 0;", r"OUT OF BOUNDS shared write"),
    "index outside an array type": (
        "int a[4] = {}; out[threadIdx.x] = a[threadIdx.x];",
        r"INDEX OUT OF BOUNDS of an array type at wrong\.cu:2",
    ),
    "misaligned vector": ("*(float4*)(out + 1) = *(const float4*)in;", r"MISALIGNED"),
    "integer overflow": ("int i = 1 << 20; out[threadIdx.x] = (i + (int)threadIdx.x) * i;", r"INTEGER OVERFLOW in \*"),
    "division by zero": ("out[threadIdx.x] = 7 / (int)threadIdx.x;", r"DIVISION by zero"),
    "barriers in both branches": (
        "if (threadIdx.x < 32) __syncthreads();\nelse __syncthreads();",
        r"threads of one block meet at different __syncthreads",
    ),
    "barrier in half of a warp": ("if (threadIdx.x % 2) { __syncthreads(); out[0] = 0; } else __syncwarp();", r"DEADLOCK"),
    "lane outside its own mask": ("out[threadIdx.x] = __shfl_sync(0xffffu, in[threadIdx.x], 0);", r"lane \d+ calls with the mask 0000ffff"),
    "lanes missing from a shuffle": (
        "if (threadIdx.x % 32 < 16) out[threadIdx.x] = __shfl_sync(0xffffffffu, in[threadIdx.x], 0); else __syncthreads();",
        r"DEADLOCK",
    ),
    "a failed assertion": ("assert(threadIdx.x < 5);", r"assert\(threadIdx\.x < 5\) failed at line 2"),
    "another thread's local memory": (
        "__shared__ float* at[1]; float mine = in[threadIdx.x]; if (threadIdx.x == 0) at[0] = &mine; __syncthreads(); out[threadIdx.x] = *at[0];",
        r"another thread's local memory",
    ),
    "a copy past the end": (
        "__shared__ float4 s[64];\nif (threadIdx.x == 16) sim::async_copy(s, in + 4 * threadIdx.x, 16, 0);\nsim::async_commit(); sim::async_wait(0);",
        r"OUT OF BOUNDS global read of 16 bytes, 0 bytes past the end of an array of 256 bytes at .*wrong\.cu:3",
    ),
    "a copy that is read before it was waited for": (
        "__shared__ float4 s[64]; sim::async_copy(s + threadIdx.x, in, 16, 0);\nout[threadIdx.x] = s[threadIdx.x].x; sim::async_wait(0);",
        r"UNINITIALISED shared read .*wrong\.cu:3",
    ),
    "a copy that is never waited for": (
        "__shared__ float4 s[64]; sim::async_copy(s + threadIdx.x, in, 16, 0);",
        r"exits with 1 cp\.async copies never waited for",
    ),
    "a misaligned copy": (
        "__shared__ float4 s[64];\nsim::async_copy(s + threadIdx.x, in + 1, 16, 0);",
        r"MISALIGNED cp\.async of 16 bytes at .*wrong\.cu:3",
    ),
    "too much shared memory": (
        "__shared__ float s[20000]; s[threadIdx.x] = 0;",
        r"80000 bytes of shared memory asked for, the limit is 49152",
    ),
}
HEAD = 'extern "C" __global__ void wrong(const float* in, float* out) {\n'


@pytest.mark.parametrize("name", WRONG)
def test_it_says_what_is_wrong(name: str) -> None:
    body, message = WRONG[name]
    kernel = SimModule(HEAD + body + "\n}", filename="wrong.cu", mode="check").get_function("wrong")
    with pytest.raises(SimError, match=message):
        kernel((2,), (64,), (np.ones(64, np.float32), np.zeros(64, np.float32)))


def test_a_finding_names_the_line_of_the_source() -> None:
    code = HEAD + "float v = in[threadIdx.x];\n\nout[threadIdx.x + 1] = v;\n}"
    with pytest.raises(SimError, match=r"wrong\.cu:4"):
        SimModule(code, filename="wrong.cu", mode="check").get_function("wrong")(
            (1,), (64,), (np.ones(64, np.float32), np.zeros(64, np.float32))
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4, np.float32),), "takes 3 arguments, got 1"),
        ((np.zeros(4), np.int32(4), np.float32(1)), "an array of float64 for a pointer to f32"),
        ((np.zeros((4, 4), np.float32).T, np.int32(4), np.float32(1)), "not C-contiguous"),
        ((np.zeros(4, np.float32), 4, np.float32(1)), "pass a NumPy scalar, not int"),
        ((np.zeros(4, np.float32), np.int64(4), np.float32(1)), "int64 for a parameter of kind i32"),
        ((np.zeros(4, np.float32), np.int32(4), np.float64(1)), "float64 for a parameter of kind f32"),
        ((np.float32(1), np.int32(4), np.float32(1)), "float32 for a parameter of kind p64"),
        ((None, np.int32(4), np.float32(1)), "pass a NumPy scalar, not NoneType"),  # of which CuPy makes -1 in half a pointer
    ],
)
def test_arguments_are_checked(arguments: tuple[Any, ...], message: str) -> None:
    kernel = SimModule(
        'extern "C" __global__ void scale(float* x, int n, float a) { if (threadIdx.x < n) x[threadIdx.x] *= a; }'
    ).get_function("scale")
    with pytest.raises(SimError, match=message):
        kernel((1,), (32,), arguments)


PAIR = np.dtype([("x", np.int64, 2), ("n", np.int32), ("more", np.int32)])
FILL = """
struct Pair { float* x[2]; int n, more; };
extern "C" __global__ void fill(const Pair pair) {
    if (threadIdx.x < pair.n) pair.x[blockIdx.x][threadIdx.x] += pair.more;
}
"""


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_a_struct_by_value_and_the_addresses_in_it(mode: str) -> None:
    kernel = SimModule(FILL, mode=mode).get_function("fill")
    arrays = [np.ones(5, np.float32), np.zeros(6, np.float32)]
    pair = np.zeros((), PAIR)
    pair["x"], pair["n"], pair["more"] = [a.ctypes.data for a in arrays], 5, 2
    kernel.behind = arrays
    kernel((2,), (32,), (pair,))
    assert arrays[0].tolist() == [3] * 5 and arrays[1].tolist() == [2] * 5 + [0]
    for wrong in (np.zeros(1, PAIR), np.zeros(6, np.float32), np.zeros((), [("n", np.int32)]), np.zeros((), np.float32)):
        with pytest.raises(SimError, match="for a struct of 24 bytes by value"):
            kernel((1,), (32,), (wrong,))
    if mode == "check":
        pair["n"], kernel.behind = 6, arrays
        with pytest.raises(SimError, match="OUT OF BOUNDS"):
            kernel((2,), (32,), (pair,))


@pytest.mark.parametrize(
    ("grid", "block", "shared", "message"),
    [
        ((1,), (65,), 0, "65 threads, but __launch_bounds__ says 64"),
        ((1,), (2048,), 0, "no GPU accepts"),
        ((0,), (32,), 0, "no GPU accepts"),
        ((1, 70000), (32,), 0, "no GPU accepts"),
        ((1,), (32,), 50000, "set max_dynamic_shared_size_bytes"),
    ],
)
def test_launches_are_checked(grid: tuple[int, ...], block: tuple[int, ...], shared: int, message: str) -> None:
    kernel = SimModule('extern "C" __global__ void __launch_bounds__(64) nothing(float* x) {}').get_function("nothing")
    with pytest.raises(SimError, match=message):
        kernel(grid, block, (np.zeros(4, np.float32),), shared_mem=shared)


def test_what_does_not_compile_says_why() -> None:
    with pytest.raises(SimError, match=r"broken\.cu does not compile for the CPU:\n(.|\n)*missing"):
        SimModule('extern "C" __global__ void f() { missing(); }', filename="broken.cu")
    with pytest.raises(SimError, match=r"two\.cu:2: a __shared__ declaration that the simulator cannot read"):
        SimModule('extern "C" __global__ void f() {\n__shared__ float a[4], b[4]; }', filename="two.cu")


# -- and it computes as a GPU would -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "check"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_warp_functions(mode: str, order: int) -> None:
    code = """
    extern "C" __global__ void warp(const float* in, float* sums, int* votes, float* rotated) {
        float v = in[threadIdx.x];
        #pragma unroll
        for (int o = 16; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
        sums[threadIdx.x] = v;
        votes[threadIdx.x] = __popc(__ballot_sync(0xffffffffu, in[threadIdx.x] > 40)) + 100 * __syncthreads_count(in[threadIdx.x] > 40);
        rotated[threadIdx.x] = __shfl_sync(0xffffffffu, in[threadIdx.x], (threadIdx.x + 1) % 8, 8);
    }"""
    x = np.arange(64, dtype=np.float32)
    sums, votes, rotated = np.empty_like(x), np.empty(64, np.int32), np.empty_like(x)
    SimModule(code, mode=mode, order=order).get_function("warp")((1,), (64,), (x, sums, votes, rotated))
    np.testing.assert_array_equal(sums, np.repeat(x.reshape(2, 32).sum(1), 32))
    np.testing.assert_array_equal(votes, np.repeat([0, 23], 32) + 100 * 23)
    np.testing.assert_array_equal(rotated, np.roll(x.reshape(8, 8), -1, 1).ravel())


def test_atomics_from_many_blocks_on_several_threads() -> None:
    code = 'extern "C" __global__ void count(int* n, float* f) { atomicAdd(n, 1); atomicAdd(f, 1.0f); atomicMax(n + 1, (int)blockIdx.x); }'
    n, f = np.zeros(2, np.int32), np.zeros(1, np.float32)
    SimModule(code, host_threads=2).get_function("count")((100,), (96,), (n, f))
    assert n.tolist() == [9600, 99]
    assert f[0] == 9600


BLOCK_SUM = """
__device__ float warp_sum(float v) {
    #pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) v += __shfl_down_sync(0xffffffffu, v, offset);
    return v;
}
__device__ float block_sum(float v) {
    __shared__ float parts[32];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    v = warp_sum(v);
    __syncthreads();  // parts[] may still be read from the call before
    if (lane == 0) parts[warp] = v;
    __syncthreads();
    if (warp == 0) {
        v = warp_sum(lane < (int)(blockDim.x >> 5) ? parts[lane] : 0.0f);
        if (lane == 0) parts[0] = v;
    }
    __syncthreads();
    return parts[0];
}
extern "C" __global__ void total(const float* x, float* y) { y[threadIdx.x] = block_sum(block_sum(x[threadIdx.x])); }"""


def test_a_sum_over_a_block_and_its_barriers() -> None:
    code = BLOCK_SUM
    x, y = np.arange(96, dtype=np.float32), np.empty(96, np.float32)
    for settings in ({"order": 1}, {"order": 2, "mode": "check"}):
        SimModule(code, **settings).get_function("total")((1,), (96,), (x, y))
        np.testing.assert_array_equal(y, np.full(96, x.sum() * 96))
    for barrier in (
        "    __syncthreads();  // parts[] may still be read from the call before\n",
        "    if (lane == 0) parts[warp] = v;\n    __syncthreads();\n",
    ):
        broken = code.replace(barrier, barrier.replace("__syncthreads();", ""))
        assert broken != code
        with pytest.raises(SimError, match="RACE|UNINITIALISED"):
            SimModule(broken, mode="check").get_function("total")((1,), (96,), (x, y))


def test_denormals_are_zero_as_on_the_device() -> None:
    x = np.full(32, 1e-40, np.float32)
    SimModule('extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }').get_function("twice")((1,), (32,), (x,))
    assert not x.any()


def test_the_launcher_reports_findings_with_the_kernel_and_its_arguments() -> None:
    kernels: CudaKernels = simulated(("i < (count); i +=", "i <= (count); i +="), mode="check")
    with pytest.raises(RuntimeError, match=r"kernel dropout of elementwise\.cu, grid .*OUT OF BOUNDS global read .*elementwise\.cu:\d+"):
        RUNS["dropout"](kernels)
