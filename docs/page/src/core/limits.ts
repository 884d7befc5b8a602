import type { Axis, Limits } from "./types.ts";

/** Smallest and largest value of each control. */
export const LIMITS: Limits = {
  size: [1, 8],
  kernel: [1, 5],
  stride: [1, 4],
  padding: [0, 4],
  outputPadding: [0, 3],
  dilation: [1, 3],
  value: [-999, 999],
  probe: [0, 99],
};

/** The order in which an axis is written down. */
export const AXIS_KEYS = ["size", "kernel", "stride", "padding", "outputPadding", "dilation"] as const satisfies readonly (keyof Axis)[];

/** The axis that one dimension does not have: one row, met by one tap. */
export const SINGLE_ROW: Axis = { size: 1, kernel: 1, stride: 1, padding: 0, outputPadding: 0, dilation: 1 };

export function within(value: number, [least, most]: readonly [number, number]): boolean {
  return Number.isInteger(value) && least <= value && value <= most;
}
