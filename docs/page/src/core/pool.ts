import { spanOf } from "./geometry.ts";
import { add, at, count, grid, inside, positions, shape, zeros } from "./grid.ts";
import type { Axis, Grid, PoolWindow, Position, Settings } from "./types.ts";

/** Windows along an axis. In ceil mode a last one may hang over the edge, if it starts inside the image or its padding in front. */
export function poolPositions(axis: Axis, ceilMode: boolean): number {
  const { size, stride, padding } = axis;
  const room = size + 2 * padding - spanOf(axis);
  const whole = Math.floor(room / stride) + 1;
  return ceilMode && room % stride !== 0 && whole * stride < size + padding ? whole + 1 : whole;
}

/** The windows with their winners: padding never wins, and of equal values the first in row-major order does. */
export function poolWindows(input: Grid, settings: Settings): PoolWindow[][] {
  const { rows, columns, ceilMode } = settings;
  return grid(poolPositions(rows, ceilMode), poolPositions(columns, ceilMode), (i, j) => {
    const cells = positions(rows.kernel, columns.kernel)
      .map(([a, b]): Position => [
        i * rows.stride + a * rows.dilation - rows.padding,
        j * columns.stride + b * columns.dilation - columns.padding,
      ])
      .filter(([u, v]) => inside(input, u, v));
    const value = Math.max(...cells.map((cell) => at(input, ...cell)));
    const [winner, ...ties] = cells.filter((cell) => at(input, ...cell) === value) as [Position, ...Position[]];
    return { cells, winner, index: winner[0] * columns.size + winner[1], value, ties };
  });
}

/** The values at flat plane indices: max pooling, once the winners are known. */
export function gather(values: Grid, indices: Grid): Grid {
  const flat = values.flat();
  return indices.map((row) => row.map((index) => flat[index]!));
}

/** Its transpose, unpooling: values put at flat plane indices into zeros, added where indices repeat. */
export function scatterAt(values: Grid, indices: Grid, rows: number, columns: number): Grid {
  const image = zeros(rows, columns);
  for (const [i, j] of positions(...shape(indices))) {
    const index = indices[i]![j]!;
    add(image, Math.floor(index / columns), index % columns, at(values, i, j));
  }
  return image;
}

/** Unpooling that keeps the last of repeated indices: no transpose of anything once windows overlap. */
export function overwriteAt(values: Grid, indices: Grid, rows: number, columns: number): Grid {
  const image = zeros(rows, columns);
  for (const [i, j] of positions(...shape(indices))) {
    const index = indices[i]![j]!;
    image[Math.floor(index / columns)]![index % columns] = at(values, i, j);
  }
  return image;
}

/** How many windows see each pixel. */
export function seenBy(windows: PoolWindow[][], rows: number, columns: number): Grid {
  const image = zeros(rows, columns);
  for (const [u, v] of windows.flat().flatMap(({ cells }) => cells)) add(image, u, v, 1);
  return image;
}

/** Flat indices that more than one window chose, in order. */
export function repeatedIndices(wins: Grid): number[] {
  const flat = wins.flat();
  return count(flat.length).filter((index) => flat[index]! > 1);
}

/** The size that unpooling assumes along an axis if it is not told: (m - 1) s - 2p + k. It knows no dilation. */
export function guessedSize(axis: Axis, ceilMode: boolean): number {
  return (poolPositions(axis, ceilMode) - 1) * axis.stride - 2 * axis.padding + axis.kernel;
}
