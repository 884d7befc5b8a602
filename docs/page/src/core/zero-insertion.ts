import type { Line, Plane } from "./geometry.ts";
import { at, flipped, grid, positions } from "./grid.ts";
import type { Grid, StretchedCell, ZeroInsertion } from "./types.ts";

/** The transposed convolution as a convolution of stride 1: zeros between the pixels, zeros around, the kernel turned round. */
export function zeroInsertion(small: Grid, kernel: Grid, plane: Plane): ZeroInsertion {
  const { rows, columns } = plane;
  const stretched = grid((rows.small - 1) * rows.stride + 1, (columns.small - 1) * columns.stride + 1, (u, v): StretchedCell => {
    if (u % rows.stride || v % columns.stride) return { value: 0, kind: "inserted", source: null };
    const [i, j] = [u / rows.stride, v / columns.stride];
    return { value: at(small, i, j), kind: "value", source: [i, j] };
  });
  const [top, bottom] = padsOf(rows);
  const [left, right] = padsOf(columns);
  const padding: StretchedCell = { value: 0, kind: "padding", source: null };
  const padded = grid(
    stretched.length + top + bottom,
    stretched[0]!.length + left + right,
    (u, v) => stretched[u - top]?.[v - left] ?? padding,
  );
  const turned = flipped(kernel);
  const window = ([u, v]: readonly [number, number]): [number, number][] =>
    positions(rows.kernel, columns.kernel).map(([a, b]) => [u + a * rows.dilation, v + b * columns.dilation]);
  const weights = turned.flat();
  const output = grid(rows.large, columns.large, (u, v) =>
    window([u, v]).reduce((sum, [y, x], tap) => sum + weights[tap]! * padded[y]![x]!.value, 0),
  );
  return { stretched, pads: { top, bottom, left, right }, padded, flipped: turned, output, window };
}

/** Zeros in front and behind; output_padding goes behind. Negative ones are cropped. */
function padsOf(line: Line): [number, number] {
  const whole = line.span - 1 - line.padding;
  return [whole, whole + line.outputPadding];
}
