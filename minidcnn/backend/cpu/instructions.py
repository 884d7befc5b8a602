"""LLVM's instructions for vectors of float32, and for pairs of bf16 in the place of one: what `vector` and `streaming` are written in.

A vector has as many lanes as the processor (16 with AVX-512, 8 with AVX2, else 4). Where it has AVX512-BF16, one instruction multiplies and
adds two pairs; elsewhere it takes two, and some to take the pairs apart.

Importing this module imports numba.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from importlib import import_module
from typing import Any

import_module("numba")  # first, as in cache.py
from llvmlite import binding, ir  # noqa: E402
from numba import types  # noqa: E402
from numba.extending import intrinsic  # noqa: E402

from .jit import forced_lanes  # noqa: E402

F32, I16, I32, I64 = ir.FloatType(), ir.IntType(16), ir.IntType(32), ir.IntType(64)


def lanes() -> int:
    """float32 numbers in a vector register of this processor; MINIDCNN_LANES=4, 8 or 16 forces fewer or more."""
    if forced := forced_lanes():
        return forced
    features = binding.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx2") and features.get("fma") else 4


LANES = lanes()
VECTOR, BITS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)
_told: Any = import_module("numba.core.config")  # the processor that numba is told to compile for, if it is not this one
BF16 = LANES == 16 and not (_told.CPU_NAME or _told.CPU_FEATURES) and bool(binding.get_host_cpu_features().get("avx512bf16"))

if BF16:
    binding.initialize_native_asmparser()  # LLVM's names for these instructions differ from version to version; the processor's do not


class Loop:
    """for index in range(first, stop, step): values given to `carry` before the body are replaced by those given to `update` after it.

    With `skip=False` the body runs at least once, and its values may be used after the loop.
    """

    def __init__(self, builder: Any, first: Any, stop: Any, step: int, skip: bool = True) -> None:
        self.bd, self.first, self.stop, self.step, self.skip = builder, first, stop, step, skip
        self.carried: list[Any] = []

    def __enter__(self) -> Loop:
        bd = self.bd
        self.before, self.body, self.after = bd.block, bd.function.append_basic_block("body"), bd.function.append_basic_block("after")
        if self.skip:
            bd.cbranch(bd.icmp_signed("<", self.first, self.stop), self.body, self.after)
        else:
            bd.branch(self.body)
        bd.position_at_end(self.body)
        self.index = self.carry(self.first)
        return self

    def carry(self, start: Any) -> Any:
        value = self.bd.phi(start.type)
        value.add_incoming(start, self.before)
        self.carried.append(value)
        return value

    def update(self, values: list[Any]) -> None:
        bd = self.bd
        following, end = bd.add(self.index, I64(self.step)), bd.block  # not self.body if there was a loop in it
        for phi, value in zip(self.carried, [following, *values], strict=True):
            phi.add_incoming(value, end)
        bd.cbranch(bd.icmp_signed("<", following, self.stop), self.body, self.after)

    def __exit__(self, *_: object) -> None:
        self.bd.position_at_end(self.after)


def constant(value: Fraction | int) -> Any:
    return ir.Constant(VECTOR, [float(value)] * LANES)


def mask(indices: list[int]) -> Any:
    return ir.Constant(ir.VectorType(I32, len(indices)), indices)


def fma(bd: Any, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fmuladd.v{LANES}f32"  # one instruction where there is one
    function = bd.module.globals.get(name) or ir.Function(bd.module, ir.FunctionType(VECTOR, [VECTOR] * 3), name)
    return bd.call(function, [a, b, c])


def broadcast(bd: Any, scalar: Any) -> Any:
    undefined = ir.Constant(VECTOR, ir.Undefined)
    return bd.shuffle_vector(bd.insert_element(undefined, scalar, I32(0)), undefined, mask([0] * LANES))


def load(bd: Any, base: Any, offset: Any) -> Any:
    value = bd.load(bd.bitcast(bd.gep(base, [offset]), VECTOR.as_pointer()))
    value.align = 4
    return value


def fetch(bd: Any, base: Any, offset: Any, write: bool = True) -> None:
    """Begin to load the cache line at base + offset, unless said otherwise to write to it; an address that does not exist does no harm."""
    byte, name = ir.IntType(8).as_pointer(), "llvm.prefetch.p0i8"
    function = bd.module.globals.get(name) or ir.Function(bd.module, ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32]), name)
    bd.call(function, [bd.bitcast(bd.gep(base, [offset]), byte), I32(int(write)), I32(3), I32(1)])


def store(bd: Any, value: Any, base: Any, offset: Any, streamed: bool = False) -> None:
    """`streamed`: past the caches, to a place that a vector's length divides. Before others read it, there must be a fence."""
    stored = bd.store(value, bd.bitcast(bd.gep(base, [offset]), VECTOR.as_pointer()))
    stored.align = 4 * LANES if streamed else 4
    if streamed:
        stored.set_metadata("nontemporal", bd.module.add_metadata([I32(1)]))


# -- bf16 -----------------------------------------------------------------------------------------------------------------------------------


def store_bf16(bd: Any, value: Any, base: Any, offset: Any) -> None:
    """A vector of float32 to base + offset as bf16, two in the place of one; offset counts numbers of 2 bytes."""
    if BF16:
        twos = bd.asm(ir.FunctionType(ir.VectorType(I16, LANES), [VECTOR]), "vcvtneps2bf16 $1, $0", "=v,v", [value], False)
    else:
        twos = bd.trunc(bd.lshr(_rounded(bd, value), _bits(16)), ir.VectorType(I16, LANES))
    to = bd.gep(bd.bitcast(base, I16.as_pointer()), [offset])
    bd.store(twos, bd.bitcast(to, twos.type.as_pointer())).align = 2


def pair(bd: Any, low: Any, high: Any) -> Any:
    """Two vectors of float32 as one of pairs of bf16."""
    if BF16:
        both = ir.FunctionType(ir.VectorType(I16, 2 * LANES), [VECTOR, VECTOR])
        halves = bd.asm(both, "vcvtne2ps2bf16 $1, $2, $0", "=v,v,v", [low, high], False)
        return bd.bitcast(bd.shuffle_vector(halves, halves, mask([k // 2 + k % 2 * LANES for k in range(2 * LANES)])), VECTOR)
    lower, upper = bd.lshr(_rounded(bd, low), _bits(16)), bd.and_(_rounded(bd, high), _bits(-1 << 16))
    return bd.bitcast(bd.or_(lower, upper), VECTOR)


def unpaired(bd: Any, value: Any) -> tuple[Any, ...]:
    """A vector of pairs as pair_fma takes it: as it is, or taken apart to two of float32."""
    if BF16:
        return (value,)
    bits = bd.bitcast(value, BITS)
    return bd.bitcast(bd.shl(bits, _bits(16)), VECTOR), bd.bitcast(bd.and_(bits, _bits(-1 << 16)), VECTOR)


def pair_fma(bd: Any, a: tuple[Any, ...], b: tuple[Any, ...], c: Any) -> Any:
    """c plus the two products of a's and b's pairs."""
    if BF16:
        return bd.asm(ir.FunctionType(VECTOR, [VECTOR] * 3), "vdpbf16ps $3, $2, $0", "=v,0,v,v", [c, *a, *b], False)
    return fma(bd, a[0], b[0], fma(bd, a[1], b[1], c))


def _bits(value: int) -> Any:
    return ir.Constant(BITS, [value] * LANES)


def _rounded(bd: Any, value: Any) -> Any:
    """The bits of float32 numbers, of which the upper half is the nearest bf16: ties go to the even one, NaN stays."""
    bits = bd.bitcast(value, BITS)
    odd = bd.and_(bd.lshr(bits, _bits(16)), _bits(1))
    nearest = bd.add(bits, bd.add(odd, _bits(0x7FFF)))
    return bd.select(bd.fcmp_unordered("uno", value, value), bd.or_(bits, _bits(1 << 22)), nearest)


# -- functions of numba's, written in these ------------------------------------------------------------------------------------------------


def function(body: Callable[..., None], count: int) -> Callable[..., None]:
    """A numba function of `count` int64 arguments, whose code `body` writes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        body(builder, *arguments)
        return context.get_dummy_value()

    made = types.void(*[types.int64] * count), generate
    typing: dict[int, Callable[..., Any]] = {  # numba asks for a function with so many arguments
        0: lambda typing: made,
        2: lambda typing, a, b: made,
        3: lambda typing, a, b, c: made,
        4: lambda typing, a, b, c, d: made,
        7: lambda typing, a, b, c, d, e, f, g: made,
        8: lambda typing, a, b, c, d, e, f, g, h: made,
        9: lambda typing, a, b, c, d, e, f, g, h, i: made,
        15: lambda typing, a, b, c, d, e, f, g, h, i, j, k, m, n, o, p: made,
    }
    return intrinsic(typing[count])


def function_of_twos(body: Callable[..., None], count: int) -> Callable[..., None]:
    """A numba function of `count` int64 arguments and `twos`, which is None or not: that is known when its code is written."""

    def made(twos: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            body(twos != types.none, builder, *arguments[:count])
            return context.get_dummy_value()

        return types.void(*[types.int64] * count, twos), generate

    typing: dict[int, Callable[..., Any]] = {
        7: lambda typing, a, b, c, d, e, f, g, twos: made(twos),
        10: lambda typing, a, b, c, d, e, f, g, h, i, j, twos: made(twos),
    }
    return intrinsic(typing[count])
