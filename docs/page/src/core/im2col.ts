import type { Plane } from "./geometry.ts";
import { add, at, cut, grid, inside, positions, zeros } from "./grid.ts";
import type { Frame, Grid, Position } from "./types.ts";

/** The padded large image, or for the transpose all that its windows touch, if that is more. */
export function frameOf({ rows, columns }: Plane, mode: "conv" | "conv_transpose"): Frame {
  const behind = mode === "conv" ? 1 : 0; // a transposed convolution never sees the padding behind
  return {
    rows: Math.max(rows.large + (1 + behind) * rows.padding, rows.full),
    columns: Math.max(columns.large + (1 + behind) * columns.padding, columns.full),
    top: rows.padding,
    left: columns.padding,
  };
}

/** The large image inside its frame. */
export function framed(large: Grid, frame: Frame): Grid {
  return grid(frame.rows, frame.columns, (u, v) => at(large, u - frame.top, v - frame.left));
}

/** The image without its frame. */
export function unframed(image: Grid, frame: Frame, { rows, columns }: Plane): Grid {
  return cut(image, frame.top, frame.left, rows.large, columns.large);
}

/** Places in the frame under the window of a small pixel, one for each tap in row-major order. */
export function windowAt([i, j]: Position, { rows, columns }: Plane): Position[] {
  return positions(rows.kernel, columns.kernel).map(([a, b]) => [
    i * rows.stride + a * rows.dilation,
    j * columns.stride + b * columns.dilation,
  ]);
}

/** One column for each window: what it sees, tap by tap. (taps) x (small pixels) */
export function im2col(image: Grid, plane: Plane): Grid {
  const windows = positions(plane.rows.small, plane.columns.small).map((position) => windowAt(position, plane));
  const taps = plane.rows.kernel * plane.columns.kernel;
  return grid(taps, windows.length, (tap, column) => at(image, ...windows[column]![tap]!));
}

/** The transpose of im2col: every column is added back where it was read. */
export function col2im(columns: Grid, frame: Frame, plane: Plane): Grid {
  const image = zeros(frame.rows, frame.columns);
  positions(plane.rows.small, plane.columns.small).forEach((position, column) => addColumn(image, columns, column, position, plane));
  return image;
}

/** One column of col2im. */
export function addColumn(image: Grid, columns: (number | null)[][], column: number, position: Position, plane: Plane): void {
  windowAt(position, plane).forEach(([u, v], tap) => {
    if (inside(image, u, v)) add(image, u, v, columns[tap]![column] ?? 0);
  });
}
