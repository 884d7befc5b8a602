import { gcd, origin, tapsOfPhase, type Line, type Plane } from "./geometry.ts";
import { count, grid } from "./grid.ts";
import { counted, listed, upper } from "./text.ts";
import type { Overlap } from "./types.ts";

/** How many small pixels reach each large one. In two dimensions it is the product of the two axes' counts. */
export function overlapOf(plane: Plane, dims: 1 | 2): Overlap {
  const [down, along] = [countsOf(plane.rows), countsOf(plane.columns)];
  const counts = grid(plane.rows.large, plane.columns.large, (u, v) => down[u]! * along[v]!);
  const even = constant(plane.rows) && constant(plane.columns);
  const most = (plane.rows.kernel / plane.rows.stride) * (plane.columns.kernel / plane.columns.stride); // the count of the interior
  const interior = even && counts.flat().includes(most);
  const everywhere = counts.flat().every((c) => c === counts[0]![0]);
  const end = even && !interior ? "The image is too small to have an interior." : border(interior, everywhere);
  return { counts, interior, everywhere, sentence: `${reasons(plane, dims)} ${end}` };
}

export function countsOf(line: Line): number[] {
  const reached = (j: number, a: number): boolean => {
    const i = origin(line, j, a);
    return i !== null && 0 <= i && i < line.small;
  };
  return count(line.large).map((j) => count(line.kernel).filter((a) => reached(j, a)).length);
}

/** Taps modulo the stride fall evenly on all phases if and only if the stride divides their number and shares no divisor with the dilation. */
function constant({ kernel, stride, dilation }: Line): boolean {
  return kernel % stride === 0 && gcd(stride, dilation) === 1;
}

function reasons(plane: Plane, dims: 1 | 2): string {
  const [down, along] = [reason(plane.rows), reason(plane.columns)];
  if (dims === 1) return `${upper(along)}.`;
  const both = down === along ? `Along each axis, ${along}.` : `Along a column, ${down}. Along a row, ${along}.`;
  return `${both} A pixel's count is the product of the two.`;
}

function reason(line: Line): string {
  const { kernel, stride, dilation } = line;
  const shared = gcd(stride, dilation);
  const perPhase = count(stride).map((r) => tapsOfPhase(line, r).length);
  if (stride === 1) return `stride 1 puts all ${counted(kernel, "tap")} on every interior pixel`;
  if (shared > 1) {
    const missed = stride - stride / shared;
    const missing = `taps never meet ${missed} of every ${stride} pixels`;
    return `stride ${stride} and dilation ${dilation} share the divisor ${shared}, so ${missing}: the counts repeat ${listed(perPhase)}`;
  }
  if (kernel % stride === 0)
    return `stride ${stride} divides kernel ${kernel}, so every interior pixel meets ${counted(kernel / stride, "tap")}`;
  const why = kernel < stride ? `kernel ${kernel} is smaller than stride ${stride}` : `stride ${stride} does not divide kernel ${kernel}`;
  return `${why}, so the counts repeat ${listed(perPhase)}`;
}

function border(interior: boolean, everywhere: boolean): string {
  if (interior && everywhere) return "The count is constant over the whole image.";
  if (interior) return "The count is constant in the interior; at the border, fewer windows reach a pixel.";
  if (everywhere) return "The count is not constant in general, but this image is too small to show it.";
  return "The count is not constant.";
}
