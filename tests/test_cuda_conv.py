"""The inside of the GPU's convolutions: operands that are copied by 16 bytes or number by number, and groups."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from cudasim import SimModule
from hypothesis import given
from hypothesis import strategies as st
from simulated import ON_DEVICE, simulated, why_not
from test_cuda_kernels import REFERENCE, same

from minidcnn.backend import Kernels
from minidcnn.backend.cuda import conv as cuda_conv
from minidcnn.backend.cuda.base import parts
from minidcnn.backend.cuda.source import source
from minidcnn.testing import Conv, convs, integers, lay_out, layouts, seeds
from minidcnn.window import Window

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "runs")

AMPERE, TURING = (8, 0), (7, 5)
CHECKED = {"mode": "check", "order": 2}
# Copies that go on by themselves may happen at once or as late as the kernel waits for them; both, with every access checked and without.
copies = st.sampled_from([{**how, "late_copies": late} for how in ({"order": 0}, {"order": 1}, CHECKED) for late in (True, False)])
numbers = st.sampled_from(
    [*(("float32", p) for p in ("float32", "tf32x3", "tf32", "bf16")), ("float64", "float32"), ("float16", "float32")]
)


def launched(kernels: Any) -> list[str]:
    """The kernels that are launched from now on."""
    seen: list[str] = []
    launch = kernels.launcher.launch

    def spy(grid: Any, block: Any, file: str, kernel: str, *arguments: Any, **named: Any) -> None:
        seen.append(kernel)
        launch(grid, block, file, kernel, *arguments, **named)

    kernels.launcher.launch = spy
    return seen


def fetched(kernels: Any) -> set[str]:
    """How the operands of every launch from now on are fetched."""
    seen: set[str] = set()
    launch = kernels.launcher.launch

    def spy(*arguments: Any, defines: Any = (), **named: Any) -> None:
        seen.update(d for d in defines if d.startswith("ASYNC="))
        launch(*arguments, defines=defines, **named)

    kernels.launcher.launch = spy
    return seen


def all_three(kernels: Any, case: Conv, dtype: Any, layout: str, seed: int) -> None:
    """The convolution triple with all that surrounds it, against the reference."""
    out = case.window.positions(case.size)
    x, w, y = (lay_out(integers(shape, seed + i, dtype, most=3), layout) for i, shape in enumerate((case.x, case.w, case.y)))
    scale, offset, back = (integers((c,), seed, dtype) for c in (case.outputs, case.outputs, case.channels))
    forward = (x, w, offset, case.window, out, case.groups)
    same(kernels.conv2d(*forward), REFERENCE.conv2d(*forward))
    affine = (x, w, scale, offset, True, case.window, out, case.groups)
    same(kernels.conv2d_affine(*affine), REFERENCE.conv2d_affine(*affine))
    backward = (y, w, back, case.window, case.size, case.groups)
    same(kernels.conv_transpose2d(*backward), REFERENCE.conv_transpose2d(*backward))
    same(kernels.conv2d_weight(x, y, case.window, case.groups), REFERENCE.conv2d_weight(x, y, case.window, case.groups))


@given(case=convs(), kind=numbers, layout=layouts, how=copies, old=st.booleans(), seed=seeds)
def test_runs_of_16_bytes(case: Conv, kind: tuple[str, str], layout: str, how: dict[str, Any], old: bool, seed: int) -> None:
    """Whole runs are copied at once where the device can, else number by number: the same bits."""
    dtype = np.dtype(kind[0])
    line = 16 // dtype.itemsize
    case = dataclasses.replace(case, groups=1, channels=line * case.channels // case.groups, outputs=line * case.outputs // case.groups)
    kernels = simulated(precision=kind[1], **how)
    if old:
        kernels.launcher.capability = TURING
    seen = fetched(kernels)
    all_three(kernels, case, dtype, layout, seed)
    assert seen == ({f"ASYNC={int(kernels.launcher.capability >= AMPERE)}"} if case.batch else set())


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize(("down", "across"), [(128, 128), (128, 64)])
@pytest.mark.parametrize("precision", ["float32", "tf32x3", "tf32", "bf16", "float16"])
def test_large_tiles_in_many_steps(precision: str, down: int, across: int, late: bool) -> None:
    """More than one tile each way, a ring of stages that is filled several times, and a weight gradient in parts; copied at once or number by number."""
    dtype = np.dtype(np.float16 if precision == "float16" else np.float32)
    shape = ("SMALL=0",) if across == 128 else ("SMALL=1", "TALL=1")
    for outputs in (136, 133):
        kernels = simulated(order=2, late_copies=late, precision=precision)
        tensor = kernels.tensor(np.empty(0, dtype))
        kernels.tile = lambda *_, tensor=tensor: ((down, across), (*shape, f"TENSOR={tensor}"))
        seen = fetched(kernels)
        all_three(kernels, Conv(Window((3, 2), padding=(1, 1)), (11, 17), 1, 24, outputs, 1), dtype, "channels-last", 0)
        copied = f"ASYNC={int(kernels.launcher.capability >= AMPERE)}"
        assert seen == ({copied} if outputs == 136 else {copied, "ASYNC=0"})


@pytest.mark.parametrize(("channels", "outputs"), [(3, 8), (8, 3), (6, 8)])
def test_runs_that_are_not_whole_are_fetched_number_by_number(channels: int, outputs: int) -> None:
    kernels = simulated(**CHECKED)
    seen = fetched(kernels)
    case = Conv(Window((3, 2), (2, 1), (1, 1)), (7, 6), 2, channels, outputs, 1)
    all_three(kernels, case, np.float32, "channels-last", 0)
    forward = int(channels % 4 == 0 and kernels.launcher.capability >= AMPERE)  # which asks nothing of the output's channels
    assert seen == {"ASYNC=0", f"ASYNC={forward}"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_scale_and_an_offset_may_have_gaps(groups: int, dtype: Any) -> None:
    kernels, window, size = simulated(**CHECKED), Window((3, 2), (2, 1)), (7, 6)
    out = window.positions(size)
    x, w, y = (integers(s, i, dtype) for i, s in enumerate(((2, 8, *size), (12, 8 // groups, 3, 2), (2, 12, *out))))
    bias, back, terms = integers((24,), 3, dtype)[::2], integers((8,), 4, dtype)[::-1], integers((2, 24), 5, np.float32)[:, ::2]
    same(kernels.conv2d(x, w, bias, window, out, groups), REFERENCE.conv2d(x, w, bias, window, out, groups))
    affine = (x, w, *terms, True, window, out, groups)
    same(kernels.conv2d_affine(*affine), REFERENCE.conv2d_affine(*affine))
    backward = (y, w, back, window, size, groups)
    same(kernels.conv_transpose2d(*backward), REFERENCE.conv_transpose2d(*backward))


@pytest.mark.skipif(ON_DEVICE, reason="arrays are moved to the device, where they are aligned")
def test_memory_that_does_not_begin_on_16_bytes_is_fetched_number_by_number() -> None:
    shape = (2, 5, 6, 8)
    x = integers((481,), 0, np.float32)[1:].reshape(shape).transpose(0, 3, 1, 2)
    w, window = integers((4, 8, 3, 2), 1, np.float32), Window((3, 2))
    assert x.ctypes.data % 16 == 4
    kernels = simulated(**CHECKED)
    seen = fetched(kernels)
    same(kernels.conv2d(x, w, None, window, (3, 5)), REFERENCE.conv2d(x, w, None, window, (3, 5)))
    assert seen == {"ASYNC=0"}


PLACES = """
extern "C" __global__ void places(int* along, int* across) {
    Real *a = (Real*)along, *b = (Real*)across;
    for (int e = threadIdx.x; e < BM * BK; e += blockDim.x) {
        along[e] = Panel<true, BM>{a}.at(e / BK, e % BK) - a;
        across[e] = Panel<false, BM>{b}.at(e / BK, e % BK) - b;
    }
}"""


def passes(places: Any, numbers: int) -> int:
    """How often shared memory is asked when each thread reads so many neighbours from its place: a bank gives 4 bytes at a time."""
    threads = 32 // numbers  # are served together
    together = places.reshape(-1, threads)[:, :, None] + np.arange(numbers)  # (groups, threads, numbers)
    return max(int(np.bincount(np.unique(group) % 32, minlength=32).max()) for group in together)


@pytest.mark.skipif(ON_DEVICE, reason="asks the sources, not the device")
@pytest.mark.parametrize("tensor", [0, 1])
def test_threads_of_a_warp_read_different_banks(tensor: int) -> None:
    """Each number has a place of its own, lines of 16 bytes stay together, and no read or copy of kernels/tile.cuh has to wait for itself."""
    module = SimModule(source("conv.cu") + PLACES, options=("-DASYNC=1", f"-DTENSOR={tensor}"))
    along, across = (np.full((128, 16), -1, np.int32) for _ in range(2))  # (rows, ks)
    module.get_function("places")((1,), (256,), (along, across))
    for places, line in ((along, along.reshape(-1, 4)), (across, across.T.reshape(-1, 4))):
        np.testing.assert_array_equal(np.sort(places.ravel()), np.arange(128 * 16))
        assert (line[:, 0] % 4 == 0).all() and (np.diff(line, axis=1) == 1).all()
    copied = np.arange(256) % 4 * 4, np.arange(256) // 4  # cp.async: four threads to a row, or 32 to a k
    assert passes(along[copied[1] % 128, copied[0]], 4) == passes(across[np.arange(256) % 32 * 4, np.arange(256) // 32], 4) == 1
    lane = np.arange(32)
    if tensor:
        g, t = lane // 4, lane % 4
        for row in range(0, 128, 8):
            assert passes(along[row + g, 4 * t], 4) == 1
            assert all(passes(across[row + g, 4 * t + q], 1) == 1 for q in range(4))
    else:
        for j in range(8):
            for k in range(0, 16, 4):
                assert passes(along[lane % 16 + 16 * j, k], 4) == passes(along[lane // 16 + 16 * j, k], 4) == 1
                assert passes(across[lane % 16 + 16 * j, k], 1) == passes(across[lane // 16 + 16 * j, k], 1) == 1
        for j in (0, 64):  # rows that are neighbours in memory, where both factors have them
            assert all(passes(across[j + 4 * of, k], 4) == 1 for of in (lane % 16, lane // 16) for k in range(16))


# -- the shape of the work ----------------------------------------------------------------------------------------------------------------

# (images, size, kernel, channels, output channels) of convolutions whose weights the three networks train
UNET = [
    *((16, 256 >> level, 3, 64 << level >> (first and level > 0), 64 << level) for level in range(5) for first in (True, False)),
    *((16, 256 >> level, kernel, 128 << level, 64 << level) for level in range(4) for kernel in (2, 3)),
]
SEGNET = [(6, 224 >> level, 3, min(512, 64 << level), min(512, 64 << level)) for level in range(5)]
FCN = [(1, 22, 7, 512, 4096), (1, 16, 1, 4096, 4096), (1, 16, 1, 4096, 21)]


@pytest.mark.skipif(ON_DEVICE, reason="launches nothing")
@pytest.mark.parametrize(("precision", "capability"), [("float32", (8, 0)), ("tf32", (8, 0)), ("float16", (9, 0))])
@pytest.mark.parametrize("layer", [*UNET, *SEGNET, *FCN])
def test_gradients_of_weights_leave_no_multiprocessor_idle(layer: tuple[int, ...], precision: str, capability: tuple[int, int]) -> None:
    """Parts fill rounds of 264 blocks: at most a sixth of a round's places are empty, where there are enough positions to share out."""
    n, size, kernel, channels, outputs = layer
    kernels, grids = simulated(precision=precision, capability=capability), {}
    kernels.launcher.launch = lambda grid, block, file, kernel, *rest, **named: grids.update({kernel: (grid, rest)})
    dtype = np.float16 if precision == "float16" else np.float32
    window = Window((kernel, kernel), padding=(kernel // 2, kernel // 2)) if kernel % 2 else Window((2, 2), (2, 2))
    oh, ow = window.positions((size, size))
    x, y = np.empty((n, size, size, channels), dtype), np.empty((n, oh, ow, outputs), dtype)  # only their shapes matter
    kernels.conv2d_weight(x.transpose(0, 3, 1, 2), y.transpose(0, 3, 1, 2), window)
    grid, (_, _, _, sums, _, share, *_) = grids["conv_weight"]
    blocks, most = int(np.prod(grid)), -(-n * oh * ow // 256)
    waste = -(-blocks // 264) * 264 / blocks
    assert waste <= 7 / 6 or grid[2] == most, (grid, waste)
    assert sums.shape[0] == grid[2] <= most and share * (grid[2] - 1) < n * oh * ow <= share * grid[2]
    assert sums.nbytes <= max(4 * outputs * channels * kernel**2, 6 * 264 * 128 * 128 * 4)


@pytest.mark.parametrize("precision", ["float32", "tf32x3", "tf32", "bf16", "float16"])
@pytest.mark.parametrize(("outputs", "swapped"), [(40, True), (64, True), (72, False)])
def test_few_output_channels_are_the_columns_of_a_tile(outputs: int, swapped: bool, precision: str) -> None:
    """Tiles of 128 x 64 for the gradient of a weight of at most 64 output channels, several of them, in parts and in groups; where wgmma is, by that."""
    dtype = np.dtype(np.float16 if precision == "float16" else np.float32)
    for groups, channels in ((1, 24), (2, 40)):
        kernels = simulated(precision=precision, capability=None if ON_DEVICE else (9, 0), **CHECKED)
        tile, seen, launch = kernels.tile, [], kernels.launcher.launch
        kernels.tile = lambda rows, columns, like, times, tile=tile: tile(rows, columns, like, 1 << 10)  # as if there were many positions

        def spy(
            grid: Any,
            block: Any,
            file: str,
            kernel: str,
            *rest: Any,
            defines: Any = (),
            launch: Any = launch,
            seen: Any = seen,
            **named: Any,
        ) -> None:
            if kernel == "conv_weight":
                seen.append((grid[:2], {"SWAPPED=1", "TALL=1", "WGMMA=1"} & set(defines)))
            launch(grid, block, file, kernel, *rest, defines=defines, **named)

        kernels.launcher.launch = spy
        case = Conv(Window((3, 2), (2, 1), padding=(1, 1)), (9, 17), 3, groups * channels, groups * outputs, groups)
        oh, ow = case.window.positions(case.size)
        x, y = integers(case.x, 0, dtype, most=3), integers((3, groups * outputs, oh, ow), 1, dtype, most=3)
        same(kernels.conv2d_weight(x, y, case.window, groups), REFERENCE.conv2d_weight(x, y, case.window, groups))
        columns = 6 * channels
        if swapped:
            assert seen[0][0] == (-(-columns // 128), 1) and seen[0][1] >= {"SWAPPED=1", "TALL=1"}
        else:
            assert seen[0][0] == (-(-columns // 128), 1) and not {"SWAPPED=1", "TALL=1"} & seen[0][1]
        if kernels.launcher.warpgroups and precision == "float16":
            assert "WGMMA=1" in seen[0][1]


def test_parts_fill_rounds() -> None:
    """Of the numbers of parts that rounds have room for, not the next larger one, which would begin a round for a few blocks."""
    found = {blocks: parts(blocks, 1 << 10) for blocks in (1, 5, 9, 18, 36, 72, 144, 288, 576, 2000)}
    assert found == {1: 264, 5: 52, 9: 29, 18: 29, 36: 7, 72: 11, 144: 7, 288: 5, 576: 2, 2000: 1}
    assert [parts(9, most) for most in (1, 2, 28, 29, 30)] == [1, 2, 28, 29, 29]
    assert parts(5, 1 << 10, together=8) == 211


# -- groups -------------------------------------------------------------------------------------------------------------------------------

TILES = {"conv_forward", "conv_transposed", "conv_weight", "sum_parts"}
DIRECT = {"direct_forward", "direct_transposed", "direct_weight", "sum_parts"}
PHASES_DIRECT = {"conv_forward", "direct_transposed", "conv_weight", "sum_parts"}


@given(case=convs(), groups=st.integers(2, 3), lines=st.booleans(), kind=numbers, layout=layouts, how=copies, seed=seeds)
def test_groups_in_tiles(case: Conv, groups: int, lines: bool, kind: tuple[str, str], layout: str, how: dict[str, Any], seed: int) -> None:
    """Each group by tiles of its own, however few its channels: copied by 16 bytes where they are whole lines of the group."""
    dtype = np.dtype(kind[0])
    line = 16 // dtype.itemsize if lines else 1
    channels, outputs = (groups * line * c // case.groups for c in (case.channels, case.outputs))
    case = dataclasses.replace(case, groups=groups, channels=channels, outputs=outputs)
    kernels = simulated(precision=kind[1], **how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_conv, "FEW", 0)
        seen, used = fetched(kernels), launched(kernels)
        all_three(kernels, case, dtype, layout, seed)
    assert set(used) - {"normalize"} == (TILES if case.batch else set())  # by a scale that is float16, what float16 images are not
    if case.batch and lines:
        assert seen == {f"ASYNC={int(kernels.launcher.capability >= AMPERE)}"}


@given(case=convs(), groups=st.integers(2, 40), kind=numbers, layout=layouts, how=copies, seed=seeds)
def test_groups_of_few_channels(case: Conv, groups: int, kind: tuple[str, str], layout: str, how: dict[str, Any], seed: int) -> None:
    """Up to more channels than a warp has lanes, depthwise among them: no tiles, no columns in memory, no matrix product."""
    channels, outputs = (groups * c // case.groups for c in (case.channels, case.outputs))
    case = dataclasses.replace(case, groups=groups, channels=channels, outputs=outputs)
    kernels = simulated(precision=kind[1], **how)
    used = launched(kernels)
    all_three(kernels, case, np.dtype(kind[0]), layout, seed)
    assert set(used) - {"normalize"} == (DIRECT if case.batch else set())


@pytest.mark.parametrize(("inputs", "outputs", "expected"), [(1, 1, DIRECT), (7, 7, DIRECT), (8, 1, TILES), (1, 8, TILES), (8, 8, TILES)])
def test_channels_decide_about_tiles(inputs: int, outputs: int, expected: set[str]) -> None:
    kernels = simulated(**CHECKED)
    used = launched(kernels)
    all_three(kernels, Conv(Window((2, 3), (1, 2), (1, 1)), (5, 6), 2, 3 * inputs, 3 * outputs, 3), np.float32, "channels-last", 0)
    assert set(used) == expected


def test_more_groups_than_a_grid_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks along the third axis are phases or parts of all groups: too many groups go without tiles, and there are no more parts than fit."""
    monkeypatch.setattr(cuda_conv, "MOST", 11)
    case = Conv(Window((3, 2), padding=(1, 1)), (23, 30), 2, 4 * 8, 4 * 8, 4)  # in 3 parts
    kernels = simulated()
    used, launch, blocks = launched(kernels), kernels.launcher.launch, []

    def spy(grid: Any, *arguments: Any, **named: Any) -> None:
        blocks.extend(grid[2:])
        launch(grid, *arguments, **named)

    kernels.launcher.launch = spy
    all_three(kernels, case, np.float32, "channels-last", 0)
    assert set(used) == TILES and max(blocks) == 8
    used.clear()
    case = dataclasses.replace(case, window=Window((3, 2), (3, 1), (1, 1)))
    all_three(kernels, case, np.float32, "channels-last", 0)
    assert set(used) == PHASES_DIRECT
    used.clear()
    monkeypatch.setattr(cuda_conv, "MOST", 3)
    all_three(kernels, case, np.float32, "channels-last", 0)
    assert set(used) == DIRECT


def test_more_phases_of_a_stride_than_a_grid_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strides of 256 and more both ways, without groups: the other two have no phases, and keep their tiles."""
    monkeypatch.setattr(cuda_conv, "MOST", 11)
    kernels = simulated(**CHECKED)
    used = launched(kernels)
    all_three(kernels, Conv(Window((5, 3), (4, 3), (1, 1)), (13, 8), 2, 9, 12, 1), np.float32, "channels-last", 0)
    assert set(used) == PHASES_DIRECT


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("precision", ["float32", "tf32x3", "tf32", "bf16", "float16"])
def test_groups_of_many_channels_in_large_tiles(precision: str, late: bool) -> None:
    """Tiles of 128, more than one of each group in every direction; on a device with wgmma, by that."""
    kernels = simulated(order=2, late_copies=late, precision=precision)
    dtype = np.dtype(np.float16 if precision == "float16" else np.float32)
    tensor = kernels.tensor(np.empty(0, dtype))
    kernels.tile = lambda *_: ((128, 128), ("SMALL=0", f"TENSOR={tensor}"))
    used = launched(kernels)
    all_three(kernels, Conv(Window((2, 1)), (7, 27), 1, 2 * 72, 2 * 136, 2), dtype, "channels-last", 0)
    assert set(used) - {"normalize"} == TILES


def test_a_depthwise_gradient_in_many_parts() -> None:
    """Each part has rows of several images, and the bits do not depend on the order of blocks."""
    x, y = (np.random.default_rng(i).standard_normal((3, 70, 17, 9)).astype(np.float32) for i in range(2))
    window = Window((5, 3), padding=(2, 1))
    results = [simulated(order=order).conv2d_weight(x, y, window, 70) for order in (0, 1, 2)]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    exact = Kernels(np).conv2d_weight(x.astype(np.float64), y.astype(np.float64), window, 70)
    size = Kernels(np).conv2d_weight(abs(x).astype(np.float64), abs(y).astype(np.float64), window, 70)
    assert (abs(results[0] - exact) <= 3 * 17 * 9 * 2.0**-24 * size).all()
