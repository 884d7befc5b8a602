import { largeSize, spanOf } from "./geometry.ts";
import { count, shape } from "./grid.ts";
import { AXIS_KEYS, LIMITS, within } from "./limits.ts";
import { poolPositions } from "./pool.ts";
import { axesOf, counted, num } from "./text.ts";
import type { Axis, Check, Grid, Problem, Settings } from "./types.ts";

const NAMES = {
  size: "input size",
  kernel: "kernel",
  stride: "stride",
  padding: "padding",
  outputPadding: "output_padding",
  dilation: "dilation",
} as const;

/** Whether these settings can be carried out, and if not, why, with both numbers and the way out. */
export function check(settings: Settings): Check {
  const outside = checkRanges(settings);
  if (outside) return outside;
  const byMode = { conv: checkConv, conv_transpose: checkTranspose, pool: checkPool }[settings.mode];
  return byMode(settings) ?? { ok: true };
}

function no(problem: Problem, sentence: string): Check {
  return { ok: false, problem, sentence };
}

function checkRanges(settings: Settings): Check | null {
  for (const { axis, pixels } of axesOf(settings)) {
    for (const key of AXIS_KEYS) {
      if (!within(axis[key], LIMITS[key])) {
        return no("range", `The ${NAMES[key]} of the ${pixels} must be a whole number from ${LIMITS[key].join(" to ")}, not ${axis[key]}.`);
      }
    }
  }
  const { rows, columns } = settings;
  return checkGrid("kernel", settings.kernel, rows.kernel, columns.kernel) ?? checkGrid("input", settings.input, rows.size, columns.size);
}

function checkGrid(name: string, values: Grid, rows: number, columns: number): Check | null {
  if (values.length !== rows || values.some((row) => row.length !== columns)) {
    return no("range", `The ${name} has ${shape(values).join(" x ")} numbers where the controls say ${rows} x ${columns}.`);
  }
  const odd = values.flat().find((value) => !within(value, LIMITS.value));
  return odd === undefined
    ? null
    : no("range", `The ${name} must hold whole numbers from ${LIMITS.value.map(num).join(" to ")}, not ${odd}.`);
}

function checkFit(settings: Settings, least: (axis: Axis) => number): Check | null {
  for (const { axis, pixels } of axesOf(settings)) {
    const span = spanOf(axis);
    const padded = axis.size + 2 * axis.padding;
    if (padded - span < least(axis)) {
      return no(
        "window",
        `The window spans ${span} ${pixels} (dilation ${axis.dilation} · (kernel ${axis.kernel} − 1) + 1), but the padded input has only ` +
          `${padded}: make the input or the padding larger, or the kernel or the dilation smaller.`,
      );
    }
  }
  return null;
}

function checkConv(settings: Settings): Check | null {
  return checkFit(settings, () => 0);
}

function checkTranspose(settings: Settings): Check | null {
  const axes = axesOf(settings);
  for (const { axis } of axes) {
    if (axis.outputPadding >= Math.max(axis.stride, axis.dilation)) {
      return no(
        "output_padding",
        `The output_padding ${axis.outputPadding} must be smaller than the stride ${axis.stride} or the dilation ${axis.dilation}: it only ` +
          `chooses among the sizes that a convolution of that stride takes to the same size. Make it smaller or the stride larger.`,
      );
    }
  }
  for (const { axis, pixel, pixels } of axes) {
    const size = largeSize(axis);
    if (size < 1) {
      const back = axis.outputPadding ? ` (and the output_padding gives back ${axis.outputPadding})` : "";
      const whole = size - axis.outputPadding + 2 * axis.padding;
      return no(
        "empty",
        `The padding ${axis.padding} crops ${counted(2 * axis.padding, pixel, pixels)} from an output of ${whole}${back}, which leaves ${num(size)}: ` +
          `make the padding smaller, or the input, the kernel or the stride larger.`,
      );
    }
  }
  return null;
}

function checkPool(settings: Settings): Check | null {
  for (const { axis } of axesOf(settings)) {
    if (2 * axis.padding > spanOf(axis)) {
      return no(
        "pool_padding",
        `The padding ${axis.padding} is more than half of the window's span ${spanOf(axis)}, so some windows would see padding only, where ` +
          `there is no maximum: make the padding smaller or the kernel larger.`,
      );
    }
  }
  const misfit = checkFit(settings, (axis) => (settings.ceilMode ? 1 - axis.stride : 0));
  if (misfit) return misfit;
  for (const { axis, pixel } of axesOf(settings)) {
    const { size, kernel, stride, padding, dilation } = axis;
    const sees = (i: number): boolean => count(kernel).some((a) => within(i * stride + a * dilation - padding, [0, size - 1]));
    const blind = count(poolPositions(axis, settings.ceilMode)).find((i) => !sees(i));
    if (blind !== undefined) {
      return no(
        "padding_only",
        `Along the ${settings.dims === 1 ? "input" : `${pixel}s`}, window ${blind} sees padding only, where there is no maximum: make the ` +
          `padding or the dilation smaller, or the input larger.`,
      );
    }
  }
  return null;
}
