import { largeSize, lineOf, smallSize, spanOf } from "./geometry.ts";
import { poolPositions } from "./pool.ts";
import { axesOf, counted, listed } from "./text.ts";
import type { Axis, Settings, Size } from "./types.ts";

/** The size formula of each axis, with letters and with numbers. */
export function sizesOf(settings: Settings): Size[] {
  return axesOf(settings).map(({ name, axis, ...words }) => {
    if (settings.mode === "conv") return { axis: name, ...convSize(axis, words) };
    if (settings.mode === "conv_transpose") return { axis: name, ...transposeSize(axis, words) };
    return { axis: name, ...poolSize(axis, settings.ceilMode, words) };
  });
}

type Line = Omit<Size, "axis">;
type Words = { pixel: string; pixels: string };

function convSize(axis: Axis, words: Words): Line {
  const { size, kernel, stride, padding, dilation } = axis;
  const result = smallSize(axis);
  const { outputPadding } = lineOf(axis, "conv");
  const back = size - outputPadding;
  return {
    formula: "⌊(n + 2p − d(k − 1) − 1) / s⌋ + 1",
    numbers: `⌊(${size} + 2·${padding} − ${dilation}·(${kernel} − 1) − 1) / ${stride}⌋ + 1 = ${result}`,
    result,
    sentence:
      `${sharedSizes(back, stride, result, words)} The transposed convolution returns to ${size} with output_padding ${outputPadding}.` +
      (outputPadding
        ? ` ${counted(outputPadding, words.pixel, words.pixels)} at the end ${outputPadding === 1 ? "does" : "do"} not fill another step.`
        : ""),
  };
}

function transposeSize(axis: Axis, words: Words): Line {
  const { size, kernel, stride, padding, outputPadding, dilation } = axis;
  const result = largeSize(axis);
  const again = Math.floor((result + 2 * padding - spanOf(axis)) / stride) + 1;
  return {
    formula: "(m − 1)s − 2p + d(k − 1) + 1 + output_padding",
    numbers: `(${size} − 1)·${stride} − 2·${padding} + ${dilation}·(${kernel} − 1) + 1 + ${outputPadding} = ${result}`,
    result,
    sentence:
      outputPadding < stride
        ? sharedSizes(result - outputPadding, stride, size, words) +
          (stride > 1 ? ` output_padding ${outputPadding} chooses ${result}.` : "")
        : `A convolution takes ${counted(result, words.pixel, words.pixels)} to ${again}, not back to ${size}: output_padding ${outputPadding} is not below the ` +
          `stride ${stride}. It is accepted only because it is below the dilation ${dilation}.`,
  };
}

/** Which large sizes a convolution takes to the same small one. Sizes below 1 are none. */
function sharedSizes(least: number, stride: number, small: number, { pixel, pixels }: Words): string {
  const most = least + stride - 1;
  if (stride === 1)
    return `At stride 1 only ${counted(most, pixel, pixels)} ${most === 1 ? "becomes" : "become"} ${small}: nothing is rounded.`;
  const first = Math.max(1, least);
  if (first === most) return `Only ${counted(most, pixel, pixels)} ${most === 1 ? "becomes" : "become"} ${small} in the convolution.`;
  const sizes = listed(Array.from({ length: most - first + 1 }, (_, i) => first + i));
  return `${sizes} ${pixels} all become ${small} in the convolution.`;
}

function poolSize(axis: Axis, ceilMode: boolean, words: Words): Line {
  const { size, kernel, stride, padding, dilation } = axis;
  const result = poolPositions(axis, ceilMode);
  const room = size + 2 * padding - spanOf(axis);
  const rounded = Math.ceil(room / stride) + 1;
  const [open, close] = ceilMode ? ["⌈", "⌉"] : ["⌊", "⌋"];
  const dropped = ceilMode && result < rounded;
  const left = Math.max(0, size + padding - ((result - 1) * stride + spanOf(axis)));
  return {
    formula: `${open}(n + 2p − d(k − 1) − 1) / s${close} + 1${dropped ? ", less a window that starts behind the image" : ""}`,
    numbers: `${open}(${size} + 2·${padding} − ${dilation}·(${kernel} − 1) − 1) / ${stride}${close} + 1${dropped ? " − 1" : ""} = ${result}`,
    result,
    sentence: dropped
      ? `Rounding up would give ${rounded}, but the last window would start behind the last of the ${words.pixels}, so it is dropped.`
      : ceilMode && room % stride !== 0
        ? `The last window hangs over the edge by ${stride - (((room % stride) + stride) % stride)}.`
        : left > 0
          ? `The last window ends ${left} before the end of ${counted(size, words.pixel, words.pixels)}.`
          : `The last window reaches the end of ${counted(size, words.pixel, words.pixels)}.`,
  };
}
