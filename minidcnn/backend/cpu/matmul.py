"""Products and sums of products of matrices at addresses, float32 or pairs of bf16: the routines that most kernels call.

All strides count numbers. Importing this module imports numba.
"""

from __future__ import annotations

from .instructions import LANES
from .routine import python_routine, routine
from .vector import ROWS, make_product, make_sum

ROWS1, ROWS2, ROWS3, ROWS4 = ROWS
DEEP, LONG = 128, 64  # numbers along k at a time in products and in sums: four vectors of so many fill 32 and 16 KiB
ADDS = 4  # rows of a sum of products are a multiple of this
ADD1, ADD2, ADD3, ADD4 = (min(ADDS, rows) & ~1 for rows in ROWS)
TALL1, TALL2 = (16, 8) if LANES == 16 else (4, 4)  # with one or two vectors, more rows spare loads where their number allows

product1, product2, product3, product4 = (make_product(rows, vectors) for vectors, rows in enumerate(ROWS, 1))
add1, add2, add3, add4 = (make_sum(rows, vectors) for vectors, rows in enumerate((ADD1, ADD2, ADD3, ADD4), 1))
tall1, tall2, tall4 = make_sum(TALL1, 1), make_sum(TALL2, 2), make_sum(ROWS4, 4)


@python_routine
def multiply(
    a: int, a_row: int, a_run: int, runs: int, b: int, to: int, to_row: int, k: int, rows: int, vectors: int, more: int, twos: int | None
) -> None:
    """to (rows, columns) = sum over the runs of a (rows, k) b (k, columns), all addresses, as make_product has it, or += it if `more`.

    Rows are rounded up to the block that fits the registers. What all rows meet of b at a time fits L1.
    Unless `twos` is None, pairs of bf16 stand in the places of numbers of a and b.
    """
    together, part = max(DEEP // k, 1), (k + DEEP - 1) // DEEP  # runs; parts of k, then numbers in a part
    part = (k + part - 1) // part
    for r in range(0, runs, together):
        count = min(together, runs - r)
        for k0 in range(0, k, part):
            a0, b0, some = a + 4 * (r * a_run + k0), b + 4 * (r * k + k0) * vectors * LANES, min(part, k - k0)
            if vectors == 4:
                product4(a0, a_row, a_run, count, b0, to, to_row, some, rows, more, twos)
            elif vectors == 3:
                product3(a0, a_row, a_run, count, b0, to, to_row, some, rows, more, twos)
            elif vectors == 2:
                product2(a0, a_row, a_run, count, b0, to, to_row, some, rows, more, twos)
            else:
                product1(a0, a_row, a_run, count, b0, to, to_row, some, rows, more, twos)
            more = 1


@routine
def add_some(
    a: int, a_row: int, a_k: int, b: int, b_row: int, to: int, to_row: int, k: int, rows: int, vectors: int, more: int, twos: int | None
) -> None:
    """As `add` without a thought for L1."""
    rows = (rows + ADDS - 1) // ADDS * ADDS  # first: sixes must not go beyond
    if vectors == 4:
        rest = 0  # any even number but 2 is a sum of fours and sixes
        while (rows - rest) % ROWS4:
            rest += ADD4
        tall = rows - rest
        tall4(a, a_row, a_k, b, b_row, to, to_row, k, tall, more, twos)
        add4(a + 4 * tall * a_row, a_row, a_k, b, b_row, to + 4 * tall * to_row, to_row, k, rest, more, twos)
    elif vectors == 3:
        add3(a, a_row, a_k, b, b_row, to, to_row, k, rows, more, twos)
    elif vectors == 2 and rows % TALL2 == 0:
        tall2(a, a_row, a_k, b, b_row, to, to_row, k, rows, more, twos)
    elif vectors == 1 and rows % TALL1 == 0:
        tall1(a, a_row, a_k, b, b_row, to, to_row, k, rows, more, twos)
    elif vectors == 2:
        add2(a, a_row, a_k, b, b_row, to, to_row, k, rows, more, twos)
    else:
        add1(a, a_row, a_k, b, b_row, to, to_row, k, rows, more, twos)


@routine
def add(
    a: int, a_row: int, a_k: int, b: int, b_row: int, to: int, to_row: int, k: int, rows: int, vectors: int, more: int, twos: int | None
) -> None:
    """to (rows, columns) = a (rows, k) b (k, columns), all addresses, or += it if `more`; rows are rounded up to ADDS.

    What all rows meet of b at a time fits L1.
    """
    parts = max((k + LONG // 2) // LONG, 1)
    part = (k + parts - 1) // parts
    for q in range(0, k, part):
        add_some(a + 4 * q * a_k, a_row, a_k, b + 4 * q * b_row, b_row, to, to_row, min(part, k - q), rows, vectors, more + q, twos)
