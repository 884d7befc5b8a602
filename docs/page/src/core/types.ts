/**
 * What the page's arithmetic takes and gives. Everything is plain data of integers; nothing here knows of a browser.
 *
 * As in the engine: a convolution reads a large image (n pixels along an axis) and gives a small one (m pixels), its transpose reads the small
 * one and gives the large one. Tap a of small pixel i meets large pixel i s + a d - p. One dimension is an image of one row.
 */

export type Mode = "conv" | "conv_transpose" | "pool";
export type Grid = number[][]; // rows of integers
export type Position = readonly [row: number, column: number];

export interface Axis {
  size: number; // of the input
  kernel: number;
  stride: number;
  padding: number;
  outputPadding: number; // read in mode "conv_transpose" only
  dilation: number;
}

/** The whole state of the page; it lives in the URL. */
export interface Settings {
  mode: Mode;
  dims: 1 | 2;
  rows: Axis; // with dims 1: one row, kernel 1, stride 1, padding 0, output padding 0, dilation 1
  columns: Axis;
  linked: boolean; // with dims 2: rows follows columns
  kernel: Grid; // rows.kernel x columns.kernel; kept, not read, in mode "pool"
  input: Grid; // rows.size x columns.size
  ceilMode: boolean; // read in mode "pool" only
  probe: number; // 0..99: which y stands on the other side of <Cx, y> = <x, C^T y>
}

/** Smallest and largest value of each control. */
export interface Limits {
  size: readonly [number, number];
  kernel: readonly [number, number];
  stride: readonly [number, number];
  padding: readonly [number, number];
  outputPadding: readonly [number, number];
  dilation: readonly [number, number];
  value: readonly [number, number]; // of an entry of the kernel or the input
  probe: readonly [number, number];
}

export type Problem =
  | "range" // a number outside its limits, or a grid that does not have the size its axes say
  | "window" // the window does not fit the padded image
  | "output_padding" // not below stride or dilation
  | "empty" // a transposed convolution would leave no pixel
  | "pool_padding" // more than half the window
  | "padding_only"; // some pooling window touches no pixel

export type Check = { ok: true } | { ok: false; problem: Problem; sentence: string };

/** One product of an output's sum. */
export interface Term {
  tap: Position;
  weight: number;
  input: Position; // may lie outside the image: then inside is false and value is 0
  inside: boolean;
  value: number;
  product: number;
}

/** The matrix of the convolution: one row per small pixel, one column per large pixel, both in row-major order. */
export interface Matrix {
  entries: Grid; // C, m x n
  taps: Grid; // flat tap a * KW + b behind each entry, -1 where no tap reaches (a tap of weight 0 is still a tap)
  transpose: Grid; // C^T, n x m
}

/** Zero insertion: a convolution of stride 1 with the flipped kernel over the stretched small image. */
export interface ZeroInsertion {
  stretched: StretchedCell[][]; // stride - 1 zeros between neighbours
  pads: { top: number; bottom: number; left: number; right: number }; // span - 1 - p, and + output padding behind; negative: crop
  padded: StretchedCell[][];
  flipped: Grid;
  output: Grid; // computed this way, alone
  /** Positions in `padded` under the flipped kernel for an output; taps row by row in the order of `flipped`. */
  window(output: Position): Position[];
}
export interface StretchedCell {
  value: number;
  kind: "value" | "inserted" | "padding";
  source: Position | null; // the small pixel, if kind is "value"
}

/** The outputs whose place in the uncropped large image is r modulo the stride, and the taps that reach them. */
export interface Phase {
  r: Position;
  taps: Position[];
  weights: number[]; // of those taps
  sum: number; // of those weights: what a constant image of ones gives in the interior
  outputs: Position[]; // large pixels of this phase
  values: number[]; // at those pixels, computed from this phase's taps alone
}
export interface Phases {
  parts: Phase[]; // stride x stride, row-major in r
  output: Grid; // put together from the parts
  equalSums: boolean; // the criterion for no checkerboard on constant images
  sentence: string;
}

/** How many small pixels reach each large one. */
export interface Overlap {
  counts: Grid;
  interior: boolean; // there are pixels away from the border (met by every tap of their phase), and their count is constant
  everywhere: boolean; // constant over the whole of this image
  sentence: string; // whether, and why, in numbers
}

/** A place on the padded large image, on which col2im adds up; the image itself starts at (top, left). */
export interface Frame {
  rows: number;
  columns: number;
  top: number;
  left: number;
}

export type Stage = "im2col" | "gemm" | "col2im" | "crop";

/** The state after a step. `columns` has a row for each tap and a column for each small pixel (window position). */
export interface Step {
  index: number;
  stage: Stage;
  sentence: string;
  column: number; // flat small pixel of this step; -1 for "crop"
  position: Position; // the same as (row, column); (-1, -1) for "crop"
  touched: Position[]; // places in the frame under the window, one for each tap; empty where the stage touches none
  columns: (number | null)[][]; // null: not yet there
  product: (number | null)[][]; // small image: mode "conv", result of the product; mode "conv_transpose", the input, all there
  image: Grid; // the frame: mode "conv", the padded input until "col2im" starts to add on zeros; else what is added up so far
}

/**
 * mode "conv": "im2col" one column at a time, "gemm" one output at a time, then "col2im" of the same columns, which gives overlap count x pixel.
 * mode "conv_transpose": "gemm" one column at a time (kernel x pixel), "col2im" one column at a time, then one "crop".
 */
export interface Stepper {
  frame: Frame;
  image: { rows: number; columns: number }; // size of the large image inside the frame
  taps: number; // rows of `columns`
  positions: number; // columns of `columns`
  count: number; // steps
  at(index: number): Step; // 0 <= index < count
  output: Grid; // where the algorithm ends: the small image for "conv", the cropped large one for "conv_transpose"
}

/** <Cx, y> and <x, C^T y>: x large, y small; one is the page's input, the other the probe. */
export interface Inner {
  x: Grid;
  y: Grid;
  cx: Grid;
  cty: Grid;
  left: number; // <Cx, y>
  right: number; // <x, C^T y>
  probe: "x" | "y"; // which of the two is the probe
}

export interface Size {
  axis: "rows" | "columns";
  formula: string; // with letters
  numbers: string; // with numbers, "= result" at its end
  result: number;
  sentence: string; // what else follows: which sizes share the result, what output_padding undoes
}

export interface Calls {
  minidcnn: string; // a program of a few lines that runs
  pytorch: string;
}

export interface ConvResult {
  mode: "conv" | "conv_transpose";
  settings: Settings;
  input: Grid;
  output: Grid; // by the defining sum
  kernel: Grid;
  small: Grid; // the small image that the transposed convolution of the views reads: the input, or for mode "conv" the probe y
  large: { rows: number; columns: number };
  impliedOutputPadding: Position; // mode "conv": the output_padding with which its transpose returns to the input's size
  /** The sum behind an output: every tap that may reach it, for mode "conv" also those on padding. */
  terms(output: Position): Term[];
  matrix: Matrix;
  matrixOutput: Grid; // C x, or C^T x, computed from the matrix
  zeroInsertion: ZeroInsertion; // of `small`; mode "conv_transpose": its output equals `output`; mode "conv": inner.cty
  phases: Phases; // of `small`, likewise
  overlap: Overlap;
  stepper: Stepper;
  inner: Inner;
  sizes: Size[]; // dims 1: columns only
  calls: Calls;
}

/** A max-pooling window. */
export interface PoolWindow {
  cells: Position[]; // the pixels it sees, padding left out
  winner: Position;
  index: number; // flat plane index of the winner, row * width + column
  value: number;
  ties: Position[]; // other pixels with the same value
}

export interface PoolResult {
  mode: "pool";
  settings: Settings;
  input: Grid;
  output: Grid;
  indices: Grid; // flat plane indices
  windows: PoolWindow[][];
  unpooled: Grid; // of `output` at `indices`, into the input's size, repeated indices added: the transpose of the gather
  overwritten: Grid; // the same, the last of repeated indices kept, as PyTorch does
  wins: Grid; // how many windows each pixel won
  overlap: Grid; // how many windows see each pixel
  repeated: number[]; // indices won more than once
  sizes: Size[];
  guessed: Position; // the size that unpooling assumes if it is not told
  sentence: string; // on repeats, sizes and what the round trip keeps
  inner: Inner; // of the gather G at these winners and its transpose: <Gx, y> = <x, G^T y>
  calls: Calls;
}

export type Result = ConvResult | PoolResult;

/** What a reader points at. */
export type Selection =
  | { kind: "input"; at: Position }
  | { kind: "output"; at: Position }
  | { kind: "tap"; at: Position }
  | { kind: "entry"; row: number; column: number } // of C: small pixel, large pixel
  | null;

/** What belongs to it in every view. A pair (output, term) belongs if it involves the selection. */
export interface Related {
  inputs: Position[];
  outputs: Position[];
  taps: Position[];
  entries: { row: number; column: number }[]; // of C
  sentence: string; // in words, for a screen reader as well
}

export interface Preset {
  id: string;
  name: string;
  settings: Settings;
  note: string; // what to look at
}

export interface Decoded {
  settings: Settings;
  notice?: string; // a sentence, if the address was not understood; the settings are then the default
}

// What src/core/index.ts exports, beside these types:
//   LIMITS: Limits · PRESETS: Preset[] · DEFAULT: Settings
//   check(settings): Check                      never throws
//   run(settings): Result                       throws if check says no
//   related(result, selection): Related         for mode "pool" as well: taps and entries are then empty
//   encode(settings): string                    for location.hash, without "#"
//   decode(hash): Decoded                       with or without "#"; "" is the default without notice
//   change(settings, edit): Settings            new settings with controls changed and grids cut or grown to fit; see edit.ts
//   setKernel(settings, at, value), setInput(settings, at, value): Settings
