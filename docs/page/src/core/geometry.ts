import { count } from "./grid.ts";
import type { Axis, Settings } from "./types.ts";

/** One axis of a convolution and its transpose. Everything follows from `reach`: tap a of small pixel i meets large pixel i s + a d - p. */
export interface Line {
  small: number; // m
  large: number; // n
  kernel: number;
  stride: number;
  padding: number;
  dilation: number;
  span: number; // pixels from the first tap to the last, d (k - 1) + 1
  full: number; // of the large image before it is cropped, (m - 1) s + span
  outputPadding: number; // what large has more than full - 2p
}

export interface Plane {
  rows: Line;
  columns: Line;
}

export function spanOf(axis: Axis): number {
  return axis.dilation * (axis.kernel - 1) + 1;
}

/** Size of the small image: floor((n + 2p - span) / s) + 1; below 1 where the window does not fit. */
export function smallSize(axis: Axis): number {
  return Math.floor((axis.size + 2 * axis.padding - spanOf(axis)) / axis.stride) + 1;
}

/** Size of the large image: (m - 1) s - 2p + span + output padding. */
export function largeSize(axis: Axis): number {
  return (axis.size - 1) * axis.stride - 2 * axis.padding + spanOf(axis) + axis.outputPadding;
}

export function lineOf(axis: Axis, mode: "conv" | "conv_transpose"): Line {
  const { kernel, stride, padding, dilation } = axis;
  const [small, large] = mode === "conv" ? [smallSize(axis), axis.size] : [axis.size, largeSize(axis)];
  const span = spanOf(axis);
  const full = (small - 1) * stride + span;
  return { small, large, kernel, stride, padding, dilation, span, full, outputPadding: large - (full - 2 * padding) };
}

export function planeOf(settings: Settings): Plane {
  const mode = settings.mode === "conv" ? "conv" : "conv_transpose";
  return { rows: lineOf(settings.rows, mode), columns: lineOf(settings.columns, mode) };
}

/** The large pixel that tap a of small pixel i meets; it may lie outside the image. */
export function reach(line: Line, i: number, a: number): number {
  return i * line.stride + a * line.dilation - line.padding;
}

/** The small pixel whose tap a meets large pixel j, or null if stride steps over it; it may lie outside the image. */
export function origin(line: Line, j: number, a: number): number | null {
  const distance = j + line.padding - a * line.dilation;
  return distance % line.stride === 0 ? distance / line.stride : null;
}

/** The taps that meet the large pixels j with j + p = r modulo the stride. */
export function tapsOfPhase(line: Line, r: number): number[] {
  return count(line.kernel).filter((a) => (a * line.dilation) % line.stride === r);
}

export function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
