import { grid, inner } from "./grid.ts";
import type { Grid, Inner } from "./types.ts";

/** The image on the other side of <Cx, y> = <x, C^T y>: numbers from -3 to 3, another set for each probe. */
export function probeImage(rows: number, columns: number, probe: number): Grid {
  return grid(rows, columns, (i, j) => ((5 * probe + 3 * i + 2 * j + i * j) % 7) - 3);
}

export function innerOf(x: Grid, y: Grid, cx: Grid, cty: Grid, probe: "x" | "y"): Inner {
  return { x, y, cx, cty, left: inner(cx, y), right: inner(x, cty), probe };
}
