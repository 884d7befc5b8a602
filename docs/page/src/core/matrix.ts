import { reach, type Plane } from "./geometry.ts";
import { at, positions, transposed, zeros } from "./grid.ts";
import type { Grid, Matrix } from "./types.ts";

/** The matrix C of the convolution: C[small pixel, large pixel] is the weight of the tap between them. */
export function matrixOf(kernel: Grid, plane: Plane): Matrix {
  const { rows, columns } = plane;
  const [m, n] = [rows.small * columns.small, rows.large * columns.large];
  const entries = zeros(m, n);
  const taps = zeros(m, n).map((row) => row.fill(-1));
  for (const [i, j] of positions(rows.small, columns.small)) {
    for (const [a, b] of positions(rows.kernel, columns.kernel)) {
      const [u, v] = [reach(rows, i, a), reach(columns, j, b)];
      if (u < 0 || u >= rows.large || v < 0 || v >= columns.large) continue; // on padding: no column of C
      entries[i * columns.small + j]![u * columns.large + v] = at(kernel, a, b);
      taps[i * columns.small + j]![u * columns.large + v] = a * columns.kernel + b;
    }
  }
  return { entries, taps, transpose: transposed(entries) };
}
