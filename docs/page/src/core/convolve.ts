import { origin, reach, type Plane } from "./geometry.ts";
import { add, at, grid, inside, positions, shape, zeros } from "./grid.ts";
import type { Grid, Position, Term } from "./types.ts";

/** The definition: each small pixel is the sum of what its window sees, times the kernel. No flip. */
export function conv(large: Grid, kernel: Grid, plane: Plane): Grid {
  return grid(plane.rows.small, plane.columns.small, (i, j) => sumOf(convTerms([i, j], large, kernel, plane)));
}

/** Its transpose, by scattering: each small pixel adds itself times the kernel to the pixels of its window. No flip either. */
export function scatter(small: Grid, kernel: Grid, plane: Plane): Grid {
  const { rows, columns } = plane;
  const large = zeros(rows.large, columns.large);
  for (const [i, j] of positions(rows.small, columns.small)) {
    for (const [a, b] of positions(rows.kernel, columns.kernel)) {
      const [u, v] = [reach(rows, i, a), reach(columns, j, b)];
      if (inside(large, u, v)) add(large, u, v, at(kernel, a, b) * at(small, i, j));
    }
  }
  return large;
}

/** The products whose sum is a small pixel of the convolution, also those on padding. */
export function convTerms([i, j]: Position, large: Grid, kernel: Grid, plane: Plane): Term[] {
  return positions(...shape(kernel)).map(([a, b]) => term([a, b], [reach(plane.rows, i, a), reach(plane.columns, j, b)], large, kernel));
}

/** The products whose sum is a large pixel of the transposed convolution: it gathers from every small pixel that reaches it. */
export function transposeTerms([u, v]: Position, small: Grid, kernel: Grid, plane: Plane): Term[] {
  return positions(...shape(kernel)).flatMap(([a, b]) => {
    const [i, j] = [origin(plane.rows, u, a), origin(plane.columns, v, b)];
    return i !== null && j !== null && inside(small, i, j) ? [term([a, b], [i, j], small, kernel)] : [];
  });
}

function term(tap: Position, input: Position, values: Grid, kernel: Grid): Term {
  const [weight, value] = [at(kernel, ...tap), at(values, ...input)];
  return { tap, weight, input, inside: inside(values, ...input), value, product: weight * value };
}

export function sumOf(terms: readonly Term[]): number {
  return terms.reduce((sum, { product }) => sum + product, 0);
}
