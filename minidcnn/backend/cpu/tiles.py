"""Products of pairs of bf16 on the matrix unit of Intel's processors (AMX), whose eight registers are tiles of up to 16 rows of 64 bytes.

One instruction adds to a tile of float32, 16 x 16, the product of two tiles of pairs: of a, 16 rows of a run along k, and of b, as many rows as
there are pairs in such a run. Pairs lie as they do elsewhere here, two numbers in the place of one.

Linux grants a process the unit when it asks. Without it the same is done on vectors, slowly, for tests: with MINIDCNN_AMX=vectors convolutions
in bf16 run so.

Importing this module imports numba.
"""

from __future__ import annotations

import ctypes
import itertools
import platform
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

cgutils: Any = import_module("numba.core.cgutils")  # first, as in cache.py
from llvmlite import binding, ir  # noqa: E402

from .instructions import (  # noqa: E402
    BF16,
    BITS,
    F32,
    I16,
    I64,
    LANES,
    VECTOR,
    Loop,
    broadcast,
    constant,
    fetch,
    fma,
    function,
    load,
    pair_fma,
    store,
    unpaired,
)
from .jit import forced_unit  # noqa: E402

REQUEST, TILE_DATA = 0x1023, 18  # arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), of Linux
ARCH_PRCTL = 158  # the number of that system call on x86-64
SIDE = 16  # rows of a tile, and numbers in a row
A_TILES, B_TILES = (4, 5), (6, 7)  # the first four hold sums
I8 = ir.IntType(8)


def _granted() -> bool:
    """Whether there is such a unit and the system lets this process use it."""
    features = binding.get_host_cpu_features()
    if forced_unit() or not (BF16 and features.get("amx-bf16") and features.get("amx-tile")):
        return False
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    return bool(ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST, TILE_DATA) == 0)


AMX = _granted()
TILES = AMX or forced_unit() == "vectors"  # whether convolutions run on them


def _instruction(bd: Any, text: str, *registers: Any) -> None:
    """An instruction of the unit: it reads and writes memory, and tiles, of which LLVM knows nothing."""
    kind = ir.FunctionType(ir.VoidType(), [I64] * len(registers))
    bd.asm(kind, text, ",".join(["r"] * len(registers) + ["~{memory}"]), list(registers), True)


def _start(bd: Any, rows: Any, chunk: Any) -> None:
    """start(rows, chunk): before blocks of so many rows, at most 16, and so many pairs at a time along k."""
    if not AMX:
        return
    kind = ir.ArrayType(I8, 64)
    held = cgutils.alloca_once(bd, kind)
    bd.store(ir.Constant(kind, None), held)

    def say(of: Any, at: int, value: Any) -> None:
        bd.store(bd.trunc(value, of), bd.bitcast(bd.gep(held, [I64(0), I64(at)]), of.as_pointer())).align = 1

    say(I8, 0, I64(1))
    for tile in range(8):
        say(I16, 16 + 2 * tile, bd.shl(chunk, I64(2)) if tile in A_TILES else I64(64))
        say(I8, 48 + tile, chunk if tile in B_TILES else rows)
    _instruction(bd, "ldtilecfg ($0)", bd.ptrtoint(held, I64))


def _stop(bd: Any) -> None:
    """stop(): tiles hold nothing any more, else the system would save them whenever it takes the processor away."""
    if AMX:
        _instruction(bd, "tilerelease")


def make_block(tiles: int, vectors: int) -> Callable[..., None]:
    """block(a, a_down, a_row, a_step, a_run, runs, b, b_row, c, c_down, c_row, k, more, rows, chunk): c = sum over the runs of a b.

    c has `tiles` parts of `rows` rows, the second one c_down numbers behind the first, and 16 `vectors` columns. Run r of a (rows, k) begins at
    a + r a_run, that of the second part a_down behind; its chunks are a_step apart, and what it meets in b (k, columns) follows what the run
    before met. Unless `more` is 0, the sum is added to what c holds. `chunk` divides k; it and `rows` are those of `start`. k counts pairs, all
    strides numbers of 4 bytes.
    """
    return function(_on_tiles(tiles, vectors) if AMX else _on_vectors(tiles, vectors), 15)


def _bytes(bd: Any, numbers: Any) -> Any:
    return bd.shl(numbers, I64(2))


def _on_tiles(tiles: int, vectors: int) -> Callable[..., None]:
    def body(
        bd: Any, a: Any, a_down: Any, a_row: Any, a_step: Any, a_run: Any, runs: Any, b: Any, b_row: Any,
        c: Any, c_down: Any, c_row: Any, k: Any, more: Any, rows: Any, chunk: Any,
    ) -> None:  # fmt: skip
        a_down, a_row, a_step, a_run, b_row, c_down, c_row = (_bytes(bd, v) for v in (a_down, a_row, a_step, a_run, b_row, c_down, c_row))
        starts = [c, bd.add(c, c_down)][:tiles]
        places = [(r * vectors + j, bd.add(to, I64(64 * j))) for r, to in enumerate(starts) for j in range(vectors)]
        with bd.if_else(bd.icmp_signed("!=", more, I64(0))) as (held, fresh):
            with held:
                for tile, place in places:
                    _instruction(bd, f"tileloadd ($0,$1,1), %tmm{tile}", place, c_row)
            with fresh:
                for tile, _ in places:
                    _instruction(bd, f"tilezero %tmm{tile}")
        count, b_step = bd.sdiv(k, chunk), bd.mul(chunk, b_row)
        with Loop(bd, I64(0), runs, 1, skip=False) as outer:
            b_first = outer.carry(b)
            a_first = bd.add(a, bd.mul(outer.index, a_run))
            with Loop(bd, I64(0), count, 1, skip=False) as inner:
                a_at, b_at = inner.carry(a_first), inner.carry(b_first)
                for tile, place in zip(A_TILES[:tiles], (a_at, bd.add(a_at, a_down)), strict=False):
                    _instruction(bd, f"tileloadd ($0,$1,1), %tmm{tile}", place, a_row)
                for j, tile in enumerate(B_TILES[:vectors]):
                    _instruction(bd, f"tileloadd ($0,$1,1), %tmm{tile}", bd.add(b_at, I64(64 * j)), b_row)
                for r, of_a in enumerate(A_TILES[:tiles]):
                    for j, of_b in enumerate(B_TILES[:vectors]):
                        _instruction(bd, f"tdpbf16ps %tmm{of_b}, %tmm{of_a}, %tmm{r * vectors + j}")
                b_next = bd.add(b_at, b_step)
                for i, j in itertools.product(range(SIDE), range(vectors)):  # b comes from L2, a from L1
                    fetch(bd, bd.inttoptr(bd.add(b_next, bd.mul(b_row, I64(i))), F32.as_pointer()), I64(SIDE * j), write=False)
                inner.update([bd.add(a_at, a_step), b_next])
            outer.update([b_next])
        for tile, place in places:
            _instruction(bd, f"tilestored %tmm{tile}, ($0,$1,1)", place, c_row)

    return body


def _on_vectors(tiles: int, vectors: int) -> Callable[..., None]:
    def body(
        bd: Any, a: Any, a_down: Any, a_row: Any, a_step: Any, a_run: Any, runs: Any, b: Any, b_row: Any,
        c: Any, c_down: Any, c_row: Any, k: Any, more: Any, rows: Any, chunk: Any,
    ) -> None:  # fmt: skip
        ap, bp, cp = (bd.inttoptr(p, F32.as_pointer()) for p in (a, b, c))
        adds, parts = bd.icmp_signed("!=", more, I64(0)), range(0, vectors * SIDE, LANES)
        for a_first, c_first in ((I64(0), I64(0)), (a_down, c_down))[:tiles]:
            with Loop(bd, I64(0), rows, 1) as row:
                from_a, to = bd.add(bd.mul(row.index, a_row), a_first), bd.add(bd.mul(row.index, c_row), c_first)
                held = [load(bd, cp, bd.add(to, I64(j))) for j in parts]
                start = [bd.select(adds, value, constant(0)) for value in held]
                with Loop(bd, I64(0), runs, 1, skip=False) as run:
                    sums = [run.carry(value) for value in start]
                    first = bd.add(from_a, bd.mul(run.index, a_run))
                    of_b = bd.mul(run.index, k)
                    with Loop(bd, I64(0), k, 1, skip=False) as along:
                        inside = [along.carry(value) for value in sums]
                        at = bd.add(bd.mul(bd.sdiv(along.index, chunk), a_step), bd.srem(along.index, chunk))
                        factor = unpaired(bd, broadcast(bd, bd.load(bd.gep(ap, [bd.add(first, at)]))))
                        line = bd.mul(bd.add(of_b, along.index), b_row)
                        columns = [unpaired(bd, load(bd, bp, bd.add(line, I64(j)))) for j in parts]
                        new = [pair_fma(bd, factor, column, value) for column, value in zip(columns, inside, strict=True)]
                        along.update(new)
                    run.update(new)
                for j, value in zip(parts, new, strict=True):
                    store(bd, value, cp, bd.add(to, I64(j)))
                row.update([])

    return body


def _finish(
    streamed: bool, bd: Any, source: Any, source_row: Any, to: Any, to_row: Any, rows: Any, columns: Any, scale: Any, offset: Any, relu: Any
) -> None:
    """finish(source, source_row, to, to_row, rows, columns, scale, offset, relu): to = scale source + offset, by column, unless relu is 0 not below 0.

    `columns` is a multiple of 16. NaN stays. `streamed`: past the caches, to whole lines of them.
    """
    sp, tp, scales, offsets = (bd.inttoptr(p, F32.as_pointer()) for p in (source, to, scale, offset))
    least = broadcast(bd, bd.select(bd.icmp_signed("==", relu, I64(0)), F32(float("-inf")), F32(0.0)))
    with Loop(bd, I64(0), columns, LANES) as across:
        factor, term = (load(bd, p, across.index) for p in (scales, offsets))
        with Loop(bd, I64(0), rows, 1) as row:
            value = fma(bd, load(bd, sp, bd.add(bd.mul(row.index, source_row), across.index)), factor, term)
            value = bd.select(bd.fcmp_ordered("<=", value, least), least, value)
            store(bd, value, tp, bd.add(bd.mul(row.index, to_row), across.index), streamed)
            row.update([])
        across.update([])


def _shift(bd: Any, source: Any, to: Any, count: Any, far: Any) -> None:
    """shift(source, to, count, far): to = pairs of the second number of each pair of source and the first one of the pair `far` places on.

    `count` is a multiple of a vector's length.
    """
    sp, tp = (bd.inttoptr(p, F32.as_pointer()) for p in (source, to))
    half = ir.Constant(BITS, [16] * LANES)
    with Loop(bd, I64(0), count, LANES) as loop:
        one, two = (bd.bitcast(load(bd, sp, at), BITS) for at in (loop.index, bd.add(loop.index, far)))
        store(bd, bd.bitcast(bd.or_(bd.lshr(one, half), bd.shl(two, half)), VECTOR), tp, loop.index)
        loop.update([])


tiles_start, tiles_stop = function(_start, 2), function(_stop, 0)
shift = function(_shift, 4)
finish, finish_streamed = (function(partial(_finish, streamed), 9) for streamed in (False, True))
