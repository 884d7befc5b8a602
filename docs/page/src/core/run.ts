import { callsOf } from "./calls.ts";
import { check } from "./check.ts";
import { conv, convTerms, scatter, transposeTerms } from "./convolve.ts";
import { planeOf } from "./geometry.ts";
import { grid, multiply } from "./grid.ts";
import { innerOf, probeImage } from "./inner.ts";
import { matrixOf } from "./matrix.ts";
import { overlapOf } from "./overlap.ts";
import { phasesOf } from "./phases.ts";
import { gather, guessedSize, overwriteAt, poolWindows, repeatedIndices, scatterAt, seenBy } from "./pool.ts";
import { sizesOf } from "./sizes.ts";
import { stepperOf } from "./stepper.ts";
import { counted, listed, num, place } from "./text.ts";
import type { ConvResult, PoolResult, Position, Result, Settings } from "./types.ts";
import { zeroInsertion } from "./zero-insertion.ts";

/** All that the page shows. Each view is computed in its own way; where a theorem says that two agree, the tests compare them. */
export function run(settings: Settings): Result {
  const verdict = check(settings);
  if (!verdict.ok) throw new Error(verdict.sentence);
  return settings.mode === "pool" ? runPool(settings) : runConv(settings, settings.mode);
}

function runConv(settings: Settings, mode: "conv" | "conv_transpose"): ConvResult {
  const { input, kernel, dims, probe } = settings;
  const plane = planeOf(settings);
  const { rows, columns } = plane;
  const forward = mode === "conv";
  const small = forward ? probeImage(rows.small, columns.small, probe) : input;
  const large = forward ? input : probeImage(rows.large, columns.large, probe);
  const [cx, cty] = [conv(large, kernel, plane), scatter(small, kernel, plane)];
  const matrix = matrixOf(kernel, plane);
  return {
    mode,
    settings,
    input,
    output: forward ? cx : cty,
    kernel,
    small,
    large: { rows: rows.large, columns: columns.large },
    impliedOutputPadding: [rows.outputPadding, columns.outputPadding],
    terms: (output: Position) => (forward ? convTerms : transposeTerms)(output, input, kernel, plane),
    matrix,
    matrixOutput: forward
      ? multiply(matrix.entries, input, rows.small, columns.small)
      : multiply(matrix.transpose, input, rows.large, columns.large),
    zeroInsertion: zeroInsertion(small, kernel, plane),
    phases: phasesOf(small, kernel, plane, mode, dims),
    overlap: overlapOf(plane, dims),
    stepper: stepperOf({ mode, input, kernel, plane, dims }),
    inner: innerOf(large, small, cx, cty, forward ? "y" : "x"),
    sizes: sizesOf(settings),
    calls: callsOf(settings, false),
  };
}

function runPool(settings: Settings): PoolResult {
  const { input, rows, columns, ceilMode, probe } = settings;
  const windows = poolWindows(input, settings);
  const indices = windows.map((row) => row.map(({ index }) => index));
  const output = windows.map((row) => row.map(({ value }) => value));
  const back = (values: number[][]): number[][] => scatterAt(values, indices, rows.size, columns.size);
  const y = probeImage(indices.length, indices[0]!.length, probe);
  const wins = back(grid(indices.length, indices[0]!.length, () => 1));
  const repeated = repeatedIndices(wins);
  const guessed: Position = [guessedSize(rows, ceilMode), guessedSize(columns, ceilMode)];
  return {
    mode: "pool",
    settings,
    input,
    output,
    indices,
    windows,
    unpooled: back(output),
    overwritten: overwriteAt(output, indices, rows.size, columns.size),
    wins,
    overlap: seenBy(windows, rows.size, columns.size),
    repeated,
    sizes: sizesOf(settings),
    guessed,
    sentence: tellPool(settings, repeated, guessed),
    inner: innerOf(input, y, gather(input, indices), back(y), "y"),
    calls: callsOf(settings, repeated.length > 0),
  };
}

function tellPool(settings: Settings, repeated: number[], guessed: Position): string {
  const { dims, rows, columns } = settings;
  const twice = repeated.map((index) => place([Math.floor(index / columns.size), index % columns.size], dims));
  const repeats = repeated.length
    ? `${counted(repeated.length, "pixel")} won more than one window (${listed(twice)}). Unpooling adds there, since it is the transpose of the ` +
      `gather; overwriting would not be.`
    : "No pixel won twice, so adding and overwriting agree: each winner returns to its place, and all other pixels become 0.";
  const size = (down: number, along: number): string => (dims === 1 ? num(along) : `${num(down)} x ${num(along)}`);
  const right = rows.size === guessed[0] && columns.size === guessed[1];
  const dilated = rows.dilation > 1 || columns.dilation > 1 ? ", since it knows no dilation" : "";
  const told = right ? "which is right here" : `but the input's was ${size(rows.size, columns.size)}, so it must be told`;
  return `${repeats} Without being told, unpooling assumes the size ${size(...guessed)}${dilated}, ${told}.`;
}
