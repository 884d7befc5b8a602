import { tapsOfPhase, type Plane } from "./geometry.ts";
import { at, count, grid, positions, zeros } from "./grid.ts";
import { listed, place } from "./text.ts";
import type { Grid, Phase, Phases, Position } from "./types.ts";

/**
 * The transposed convolution as one small convolution per phase: of the uncropped output, pixel q s + r is met by the taps a with a d = r
 * modulo s, and by no other. Each phase is computed as a plane of its own; interleaving the planes and cropping gives the output.
 */
export function phasesOf(small: Grid, kernel: Grid, plane: Plane, mode: "conv" | "conv_transpose", dims: 1 | 2): Phases {
  const { rows, columns } = plane;
  const output = zeros(rows.large, columns.large);
  const parts = positions(rows.stride, columns.stride).map((r): Phase => {
    const taps = tapsOfPhase(rows, r[0]).flatMap((a) => tapsOfPhase(columns, r[1]).map((b): Position => [a, b]));
    const weights = taps.map(([a, b]) => at(kernel, a, b));
    const subPixels = phasePlane(r, taps, weights, small, plane);
    const outputs = positions(rows.large, columns.large).filter(
      ([u, v]) => (u + rows.padding) % rows.stride === r[0] && (v + columns.padding) % columns.stride === r[1],
    );
    const values = outputs.map(([u, v]) =>
      at(subPixels, Math.floor((u + rows.padding) / rows.stride), Math.floor((v + columns.padding) / columns.stride)),
    );
    outputs.forEach(([u, v], k) => (output[u]![v] = values[k]!));
    return { r, taps, weights, sum: weights.reduce((sum, weight) => sum + weight, 0), outputs, values };
  });
  const equalSums = parts.every(({ sum }) => sum === parts[0]!.sum);
  return { parts, output, equalSums, sentence: sentenceOf(parts, equalSums, mode, dims) };
}

/** Sub-pixel r of every group of s: the small image convolved, at stride 1, with the taps of this phase, each shifted by whole groups. */
function phasePlane(r: Position, taps: Position[], weights: number[], small: Grid, { rows, columns }: Plane): Grid {
  const shifts = taps.map(([a, b]): Position => [(a * rows.dilation - r[0]) / rows.stride, (b * columns.dilation - r[1]) / columns.stride]);
  return grid(Math.ceil(rows.full / rows.stride), Math.ceil(columns.full / columns.stride), (p, q) =>
    shifts.reduce((sum, [down, along], k) => sum + weights[k]! * at(small, p - down, q - along), 0),
  );
}

function sentenceOf(parts: Phase[], equalSums: boolean, mode: "conv" | "conv_transpose", dims: 1 | 2): string {
  const constant = mode === "conv" ? "in the transpose, a constant image" : "a constant input";
  const sum = parts[0]!.sum;
  if (parts.length === 1) return `Stride 1 has one phase: every interior pixel meets all taps, whose sum is ${listed([sum])}.`;
  const dead = parts.filter(({ taps }) => taps.length === 0).map(({ r }) => place(r, dims));
  const none = dead.length === 0 ? "" : ` No tap reaches phase${dead.length > 1 ? "s" : ""} ${listed(dead)}: zero whatever the input is.`;
  if (equalSums)
    return `All ${parts.length} phase sums are ${listed([sum])}: ${constant} stays constant in the interior, without a checkerboard.${none}`;
  const sums = count(parts.length).map((k) => parts[k]!.sum);
  return `The phase sums ${listed(sums)} differ: ${constant} comes out as a pattern that repeats with the stride, a checkerboard.${none}`;
}
