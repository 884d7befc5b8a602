"""Vector code: a register-blocked matrix product and small linear maps of tiles, emitted as LLVM instructions through numba.

numba vectorises plain loops well, but keeps no block of a product in registers; the makers here write the instructions
themselves, for as many lanes as the processor has. All addresses are plain integers, all strides count float32 elements.

bf16, the upper half of a float32: two such numbers share the place of one float32, so that the same loops multiply them.

Importing this module imports numba: only kernels that are about to run do that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache, partial
from typing import Any

from numba.core import cgutils  # first, as in cache.py

from .instructions import (
    F32,
    I64,
    LANES,
    VECTOR,
    Loop,
    broadcast,
    constant,
    fetch,
    fma,
    function,
    function_of_twos,
    load,
    mask,
    pair,
    pair_fma,
    store,
    store_bf16,
    unpaired,
)
from .transforms import Matrix

_memset: Any = cgutils.memset
_memcpy: Any = cgutils.raw_memcpy
# Rows of the product's block for 1, 2, 3, 4 vectors of columns. Of 16 lanes, 12 rows of 2 vectors would fit, but LLVM makes slow code of them.
ROWS = {16: (14, 10, 8, 6), 8: (10, 6, 3, 2), 4: (14, 12, 8, 6)}[LANES]


@lru_cache(1024)
def panel_vectors(n: int) -> int:
    """Vectors in a row of a panel of n columns: as many as waste the fewest columns, four if there is a choice."""
    return min((4, 3, 2, 1), key=lambda v: (-(-n // (v * LANES)) * v, -v))


def make_product(block: int, vectors: int) -> Callable[..., None]:
    """product(a, a_row, a_run, runs, b, c, c_row, k, rows, more, twos): c (rows, columns) = sum over the runs of a (rows, k) b (k, columns).

    columns = vectors * LANES. Run r of a begins at a + r a_run, what it meets in b follows what the run before met. `block` rows of c at a
    time stay in registers: each step along k loads `vectors` vectors of b and broadcasts `block` numbers of a. rows are rounded up to whole
    blocks; runs and k must be at least 1. Unless `more` is 0, the sum is added to what c holds, as if it went on: the same bits as in one go.
    Unless `twos` is None, each number of a and b is a pair of bf16, the first one in the lower half, and two pairs multiply to the sum of two
    products.
    """

    def body(
        twos: bool, bd: Any, a: Any, a_row: Any, a_run: Any, runs: Any, b: Any, c: Any, c_row: Any, k: Any, rows: Any, more: Any
    ) -> None:
        ap, bp, cp = (bd.inttoptr(p, F32.as_pointer()) for p in (a, b, c))
        columns = I64(vectors * LANES)
        with Loop(bd, I64(0), rows, block) as down:
            first, to = (bd.gep(p, [bd.mul(down.index, row)]) for p, row in ((ap, a_row), (cp, c_row)))
            start = _start(bd, to, c_row, block, vectors, more)
            with Loop(bd, I64(0), runs, 1, skip=False) as outer:
                sums = [outer.carry(value) for value in start]
                a_at, b_at = bd.gep(first, [bd.mul(outer.index, a_run)]), bd.gep(bp, [bd.mul(bd.mul(outer.index, k), columns)])
                sums = _multiply_add(twos, bd, sums, a_at, a_row, I64(1), b_at, columns, k, block, vectors)
                outer.update(sums)
            _store_block(bd, sums, to, c_row, block, vectors)
            down.update([])

    return function_of_twos(body, 10)


def make_sum(block: int, vectors: int) -> Callable[..., None]:
    """sum(a, a_row, a_k, b, b_k, c, c_row, k, rows, more, twos): c (rows, vectors * LANES) = a (rows, k) b (k, columns), in blocks as above.

    As a is addressed by two strides, the same code serves a and its transpose. k must be at least 1. `more` and `twos` as above.
    """

    def body(twos: bool, bd: Any, a: Any, a_row: Any, a_k: Any, b: Any, b_k: Any, c: Any, c_row: Any, k: Any, rows: Any, more: Any) -> None:
        ap, bp, cp = (bd.inttoptr(p, F32.as_pointer()) for p in (a, b, c))
        with Loop(bd, I64(0), rows, block) as down:
            first, to = (bd.gep(p, [bd.mul(down.index, row)]) for p, row in ((ap, a_row), (cp, c_row)))
            sums = _multiply_add(twos, bd, _start(bd, to, c_row, block, vectors, more), first, a_row, a_k, bp, b_k, k, block, vectors)
            _store_block(bd, sums, to, c_row, block, vectors)
            down.update([])

    return function_of_twos(body, 10)


def _multiply_add(
    twos: bool, bd: Any, start: list[Any], a: Any, a_row: Any, a_k: Any, b: Any, b_k: Any, k: Any, rows: int, vectors: int
) -> list[Any]:
    """A block of sums, `vectors` to a row, plus a (rows, k) b (k, columns)."""
    of_a = [bd.gep(a, [bd.mul(a_row, I64(r))]) for r in range(rows)]
    with Loop(bd, I64(0), k, 1, skip=False) as loop:
        sums = [loop.carry(v) for v in start]
        b_at, a_at = bd.gep(b, [bd.mul(loop.index, b_k)]), bd.mul(loop.index, a_k)
        columns = [load(bd, b_at, I64(j * LANES)) for j in range(vectors)]
        if twos:
            columns = [unpaired(bd, column) for column in columns]
        new = []
        for r in range(rows):
            factor = broadcast(bd, bd.load(bd.gep(of_a[r], [a_at])))
            if twos:
                factor = unpaired(bd, factor)
            new += [(pair_fma if twos else fma)(bd, factor, columns[j], sums[r * vectors + j]) for j in range(vectors)]
        loop.update(new)
    return new


def _start(bd: Any, c: Any, c_row: Any, rows: int, vectors: int, more: Any) -> list[Any]:
    """What c (rows, vectors * LANES) holds, or zeros if `more` is 0."""
    before = bd.block
    with bd.if_then(bd.icmp_signed("!=", more, I64(0))):
        held = [load(bd, c, bd.add(bd.mul(c_row, I64(r)), I64(j * LANES))) for r in range(rows) for j in range(vectors)]
        loaded = bd.block
    start = [bd.phi(VECTOR) for _ in held]
    for phi, value in zip(start, held, strict=True):
        phi.add_incoming(constant(0), before)
        phi.add_incoming(value, loaded)
    return start


def _store_block(bd: Any, sums: list[Any], c: Any, c_row: Any, rows: int, vectors: int) -> None:
    for r in range(rows):
        line = bd.gep(c, [bd.mul(c_row, I64(r))])
        for j in range(vectors):
            store(bd, sums[r * vectors + j], line, I64(j * LANES))


ALONG, SECOND = 1, 2  # how a transform may write bf16


def make_transform(
    matrix: Matrix, bf16: Matrix | None = None, affine: bool = False, write: int = 0, streamed: bool = False
) -> Callable[..., None]:
    """transform(src, src_row, src_col, dst, dst_row, dst_col, count): dst = matrix src matrix^T, for square tiles of channels.

    src[i][j] is the run of `count` channels at src + i src_row + j src_col; they are done LANES at once, the last LANES, of which there
    must be so many, if need be with some of those before them once more.
    `affine`, for outputs, takes three more arguments (scale, offset, relu): dst = scale (matrix src matrix^T) + offset by channel, and unless
    relu is 0 not below 0, but NaN stays. The lines of the tile to the right of dst are fetched then, since it is likely to be written next,
    unless dst is `streamed` past the caches: then it lies, and its strides and `count` are, at multiples of LANES.
    `bf16`, the matrix of another factorisation, takes one more, twos, last: unless that is None, it stands for `matrix`.
    write: 0 for float32. ALONG for bf16, two neighbouring channels in the place of one number. SECOND for pairs of bf16 whose first number
    dst holds as float32. For both, `count` must be a multiple of LANES.
    """

    def vector(
        used: Matrix, bd: Any, sp: Any, src_row: Any, src_col: Any, dp: Any, dst_row: Any, dst_col: Any, c: Any, more: tuple[Any, ...]
    ) -> None:
        """LANES channels from c on."""
        m, n = len(used), len(used[0])

        def at(row: Any, i: int, column: Any, j: int, channel: Any = c) -> Any:
            return bd.add(bd.add(bd.mul(row, I64(i)), bd.mul(column, I64(j))), channel)

        halfway = [_apply(bd, used, [load(bd, sp, at(src_row, i, src_col, j)) for i in range(n)]) for j in range(n)]
        for i, j in itertools.product(range(m), range(m)) if affine and not streamed else ():
            fetch(bd, dp, at(dst_row, i, dst_col, m + j))
        if affine:
            scale, offset = (load(bd, bd.inttoptr(p, F32.as_pointer()), c) for p in more[:2])
            least = broadcast(bd, bd.select(bd.icmp_signed("==", more[2], I64(0)), F32(float("-inf")), F32(0.0)))
        for i in range(m):
            for j, value in enumerate(_apply(bd, used, [halfway[q][i] for q in range(n)])):
                if affine:
                    value = fma(bd, value, scale, offset)
                    value = bd.select(bd.fcmp_ordered("<=", value, least), least, value)
                if write == ALONG:
                    store_bf16(bd, value, bd.gep(dp, [at(dst_row, i, dst_col, j, I64(0))]), c)
                    continue
                if write == SECOND:
                    value = pair(bd, load(bd, dp, at(dst_row, i, dst_col, j)), value)
                store(bd, value, dp, at(dst_row, i, dst_col, j), streamed)

    def body(
        twos: bool, bd: Any, src: Any, src_row: Any, src_col: Any, dst: Any, dst_row: Any, dst_col: Any, count: Any, *more: Any
    ) -> None:
        used = bf16 if twos and bf16 is not None else matrix
        sp, dp = bd.inttoptr(src, F32.as_pointer()), bd.inttoptr(dst, F32.as_pointer())
        whole = bd.and_(count, I64(-LANES))
        rounds = bd.add(I64(1), bd.zext(bd.icmp_signed("<", whole, count), I64))  # the second: what is left, in one vector
        with Loop(bd, I64(0), rounds, 1) as outer:
            begins = bd.icmp_signed("==", outer.index, I64(0))
            start, stop = bd.select(begins, I64(0), bd.sub(count, I64(LANES))), bd.select(begins, whole, count)
            with Loop(bd, start, stop, LANES) as loop:
                vector(used, bd, sp, src_row, src_col, dp, dst_row, dst_col, loop.index, more)
                loop.update([])
            outer.update([])

    count = 10 if affine else 7
    return function(partial(body, False), count) if bf16 is None else function_of_twos(body, count)


def make_transpose() -> Callable[..., None]:
    """transpose(src, src_row, dst, dst_row): dst = src^T for a block of LANES x LANES numbers.

    log2(LANES) rounds of exchanging halves between rows whose numbers differ in one bit.
    """

    def body(bd: Any, src: Any, src_row: Any, dst: Any, dst_row: Any) -> None:
        sp, dp = bd.inttoptr(src, F32.as_pointer()), bd.inttoptr(dst, F32.as_pointer())
        rows = [load(bd, sp, bd.mul(src_row, I64(i))) for i in range(LANES)]
        bit = 1
        while bit < LANES:
            swapped = list(rows)
            for i in range(LANES):
                if not i & bit:
                    a, b = rows[i], rows[i | bit]
                    swapped[i] = bd.shuffle_vector(a, b, mask([q if not q & bit else LANES + (q ^ bit) for q in range(LANES)]))
                    swapped[i | bit] = bd.shuffle_vector(a, b, mask([q | bit if not q & bit else LANES + q for q in range(LANES)]))
            rows, bit = swapped, bit * 2
        for i, row in enumerate(rows):
            store(bd, row, dp, bd.mul(dst_row, I64(i)))

    return function(body, 4)


def make_fill() -> Callable[..., None]:
    """fill(src, src_row, dst, dst_row, rows, before, count, after): lines of `before` zeros, `count` numbers of src, `after` zeros; none may be negative."""

    def body(bd: Any, src: Any, src_row: Any, dst: Any, dst_row: Any, rows: Any, before: Any, count: Any, after: Any) -> None:
        sp, dp = bd.inttoptr(src, F32.as_pointer()), bd.inttoptr(dst, F32.as_pointer())
        with Loop(bd, I64(0), rows, 1) as loop:
            to = bd.gep(dp, [bd.mul(loop.index, dst_row)])
            middle = bd.gep(to, [before])
            _memset(bd, to, bd.mul(before, I64(4)), 0)
            _memcpy(bd, middle, bd.gep(sp, [bd.mul(loop.index, src_row)]), count, 4)
            _memset(bd, bd.gep(middle, [count]), bd.mul(after, I64(4)), 0)
            loop.update([])

    return function(body, 8)


def make_round() -> Callable[..., None]:
    """round(src, dst, count): dst = src in bf16, two neighbours in the place of one; count is a multiple of LANES."""

    def body(bd: Any, src: Any, dst: Any, count: Any) -> None:
        sp, dp = bd.inttoptr(src, F32.as_pointer()), bd.inttoptr(dst, F32.as_pointer())
        with Loop(bd, I64(0), count, LANES) as loop:
            store_bf16(bd, load(bd, sp, loop.index), dp, loop.index)
            loop.update([])

    return function(body, 3)


def make_pair() -> Callable[..., None]:
    """pair(first, second, dst, count): dst = pairs of bf16 of two runs of float32; count is a multiple of LANES."""

    def body(bd: Any, first: Any, second: Any, dst: Any, count: Any) -> None:
        ap, bp, dp = (bd.inttoptr(p, F32.as_pointer()) for p in (first, second, dst))
        with Loop(bd, I64(0), count, LANES) as loop:
            store(bd, pair(bd, load(bd, ap, loop.index), load(bd, bp, loop.index)), dp, loop.index)
            loop.update([])

    return function(body, 4)


def _apply(bd: Any, matrix: Matrix, values: list[Any]) -> list[Any]:
    """matrix @ values, without multiplying by 0 and 1.

    Columns of evaluation points p and -p are alike up to signs: their values' sum and difference serve all rows. Rows of p and -p are sum
    and difference of two halves.
    """
    matrix, values = _sums_and_differences(bd, matrix, values)
    result: list[Any] = [None] * len(matrix)
    for i, row in enumerate(matrix):
        if result[i] is not None:
            continue
        for j in range(i + 1, len(matrix)):
            even = [c for c, (a, b) in enumerate(zip(row, matrix[j], strict=True)) if a and a == b]
            odd = [c for c, (a, b) in enumerate(zip(row, matrix[j], strict=True)) if a and a == -b]
            if even and odd and all(c in even or c in odd or not (row[c] or matrix[j][c]) for c in range(len(row))):
                factor = row[odd[-1]] if len(odd) > 1 else Fraction(1)  # taken out: one multiplication fewer
                e, o = (
                    _combine(bd, [(row[c], values[c]) for c in even]),
                    _combine(bd, [(row[c] / factor, values[c]) for c in odd]),
                )
                result[i], result[j] = (_combine(bd, [(Fraction(1), e), (sign * factor, o)]) for sign in (1, -1))
                break
        else:
            result[i] = _combine(bd, [(a, values[c]) for c, a in enumerate(row) if a])
    return result


def _sums_and_differences(bd: Any, matrix: Matrix, values: list[Any]) -> tuple[Matrix, list[Any]]:
    """The same product, in which each two columns that are alike up to signs stand for the sum and the difference of their values."""
    columns, values = [list(column) for column in zip(*matrix, strict=True)], list(values)
    for j, k in itertools.combinations(range(len(columns)), 2):
        signs = {a == b for a, b in zip(columns[j], columns[k], strict=True) if a or b}
        if len(signs) == 2 and all(abs(a) == abs(b) for a, b in zip(columns[j], columns[k], strict=True)):
            values[j], values[k] = bd.fadd(values[j], values[k]), bd.fsub(values[j], values[k])
            same = [a == b for a, b in zip(columns[j], columns[k], strict=True)]
            columns[j], columns[k] = (
                [a if s == wanted else Fraction(0) for a, s in zip(columns[j], same, strict=True)] for wanted in (True, False)
            )
    return [list(row) for row in zip(*columns, strict=True)], values


def _combine(bd: Any, terms: list[tuple[Fraction, Any]]) -> Any:
    """The sum of coefficient times value."""
    total: Any = None
    for coefficient, value in sorted(terms, key=lambda term: abs(term[0]) != 1):
        if total is None:
            total = value if coefficient == 1 else bd.fneg(value) if coefficient == -1 else bd.fmul(constant(coefficient), value)
        elif abs(coefficient) == 1:
            total = bd.fadd(total, value) if coefficient == 1 else bd.fsub(total, value)
        else:
            total = fma(bd, constant(coefficient), value, total)
    return total
