import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

import type * as Core from "../../src/core/index.ts";
import type { ConvResult, Grid, PoolResult, Problem, Settings } from "../../src/core/types.ts";

/** A case of vectors.json: settings, and what the engine makes of them. */
export type Vector = Settings & { name: string; expected: ConvExpected | PoolExpected | { problem: Problem } };

interface ConvExpected {
  output: Grid;
  probe: Grid;
  back: Grid; // what the other of C and C^T makes of the probe
  matrix?: Grid; // C, where it is not too large
  columns?: Grid; // "conv": im2col of the input
  folded?: Grid; // "conv": col2im of those
  full?: Grid; // "conv_transpose": the output before it is cropped
  overlap: Grid;
  interior: boolean;
  everywhere: boolean;
  sums: number[];
}

interface PoolExpected {
  output: Grid;
  indices: Grid;
  unpooled: Grid;
  overwritten: Grid;
  wins: Grid;
  overlap: Grid;
  guessed: [number, number];
  probe: Grid;
  back: Grid;
}

/** The folder docs/page, in which npm runs its scripts. */
export const FOLDER = new URL(`file://${process.cwd()}/`);

export const VECTORS = JSON.parse(readFileSync(new URL("vectors.json", FOLDER), "utf8")) as Vector[];

/** What of the page's arithmetic is not what the engine says: the names of all that differ. */
export function differences(core: typeof Core, vector: Vector): string[] {
  const { name: _, expected, ...settings } = vector;
  const found: string[] = [];
  const same = (what: string, ours: unknown, theirs: unknown): void => {
    if (!isDeepStrictEqual(ours, theirs)) found.push(`${what}: ${JSON.stringify(ours)}, the engine says ${JSON.stringify(theirs)}`);
  };
  const verdict = core.check(settings);
  same("problem", verdict.ok ? undefined : verdict.problem, "problem" in expected ? expected.problem : undefined);
  if (!verdict.ok || "problem" in expected) return found;
  const result = core.run(settings);
  if (result.mode === "pool") comparePool(result, expected as PoolExpected, same);
  else compareConv(result, expected as ConvExpected, same);
  return found;
}

type Same = (what: string, ours: unknown, theirs: unknown) => void;

function compareConv(result: ConvResult, expected: ConvExpected, same: Same): void {
  const { mode, output, matrix, zeroInsertion, phases, overlap, stepper, inner, sizes, settings } = result;
  const forward = mode === "conv";
  const transpose = forward ? expected.back : expected.output; // of the small image
  same("output", output, expected.output);
  same("sums of terms", sumsOf(result), expected.output);
  same("matrix times input", result.matrixOutput, expected.output);
  same("probe", forward ? inner.y : inner.x, expected.probe);
  same("back", forward ? inner.cty : inner.cx, expected.back);
  same("the other side", forward ? inner.cx : inner.cty, expected.output);
  same("zero insertion", zeroInsertion.output, transpose);
  same("zero insertion by its windows", byWindows(result), transpose);
  same("phases", phases.output, transpose);
  same(
    "phase sums",
    phases.parts.map(({ sum }) => sum),
    expected.sums,
  );
  same("equal sums", phases.equalSums, new Set(expected.sums).size === 1);
  same("overlap", overlap.counts, expected.overlap);
  same("interior", overlap.interior, expected.interior);
  same("everywhere", overlap.everywhere, expected.everywhere);
  same("output of the steps", stepper.output, expected.output);
  same("inner products", inner.left, inner.right);
  same(
    "sizes",
    sizes.map((size) => size.result),
    [expected.output.length, expected.output[0]!.length].slice(settings.dims === 1 ? 1 : 0),
  );
  if (expected.matrix) {
    same("matrix", matrix.entries, expected.matrix);
    same(
      "transpose",
      matrix.transpose,
      expected.matrix[0]!.map((_, j) => expected.matrix!.map((row) => row[j])),
    );
  }
  same(
    "weights behind the taps",
    matrix.taps.map((row) => row.map((tap) => (tap < 0 ? 0 : result.kernel.flat()[tap]))),
    matrix.entries,
  );
  const { frame, image } = stepper;
  const last = stepper.at(stepper.count - 1);
  if (forward) {
    same("columns", last.columns, expected.columns);
    same("product", last.product, expected.output);
    const inside = last.image.slice(frame.top, frame.top + image.rows).map((row) => row.slice(frame.left, frame.left + image.columns));
    same("columns folded", inside, expected.folded);
  } else {
    const full = expected.full!;
    same(
      "uncropped",
      last.image.slice(0, full.length).map((row) => row.slice(0, full[0]!.length)),
      full,
    );
    const cropped = last.image.slice(frame.top, frame.top + image.rows).map((row) => row.slice(frame.left, frame.left + image.columns));
    same("cropped", cropped, expected.output);
  }
}

function sumsOf({ output, terms }: ConvResult): Grid {
  return output.map((row, i) => row.map((_, j) => terms([i, j]).reduce((sum, { product }) => sum + product, 0)));
}

/** Zero insertion as a reader of the view would do it: the flipped kernel over the places that the window names. */
function byWindows({ zeroInsertion: { padded, flipped, window }, large }: ConvResult): Grid {
  const weights = flipped.flat();
  return Array.from({ length: large.rows }, (_, i) =>
    Array.from({ length: large.columns }, (_, j) =>
      window([i, j]).reduce((sum, [u, v], tap) => sum + weights[tap]! * padded[u]![v]!.value, 0),
    ),
  );
}

function comparePool(result: PoolResult, expected: PoolExpected, same: Same): void {
  const { inner, settings } = result;
  same("output", result.output, expected.output);
  same("indices", result.indices, expected.indices);
  same(
    "windows",
    result.windows.map((row) => row.map(({ index, value }) => [index, value])),
    expected.indices.map((row, i) => row.map((index, j) => [index, expected.output[i]![j]])),
  );
  same("unpooled", result.unpooled, expected.unpooled);
  same("overwritten", result.overwritten, expected.overwritten);
  same("wins", result.wins, expected.wins);
  same(
    "repeated",
    result.repeated,
    expected.wins.flat().flatMap((wins, index) => (wins > 1 ? [index] : [])),
  );
  same("overlap", result.overlap, expected.overlap);
  same("guessed", result.guessed, expected.guessed);
  same("probe", inner.y, expected.probe);
  same("back", inner.cty, expected.back);
  same("gathered", inner.cx, expected.output);
  same("inner products", inner.left, inner.right);
  same(
    "sizes",
    result.sizes.map((size) => size.result),
    [expected.output.length, expected.output[0]!.length].slice(settings.dims === 1 ? 1 : 0),
  );
}
