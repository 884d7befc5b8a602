import { grid } from "./grid.ts";
import { SINGLE_ROW } from "./limits.ts";
import type { Axis, Grid, Mode, Preset, Settings } from "./types.ts";

interface Parts {
  mode?: Mode;
  columns: Partial<Axis>;
  kernel?: number[]; // in two dimensions: its outer product with itself
  input: Grid;
  ceilMode?: boolean;
}

/** Settings of one dimension, or of two linked ones, as the input has one row or more. */
function settings({ mode = "conv_transpose", columns: given, kernel = [], input, ceilMode = false }: Parts): Settings {
  const size = input[0]!.length;
  const columns: Axis = { kernel: kernel.length, stride: 1, padding: 0, outputPadding: 0, dilation: 1, ...given, size };
  const dims = input.length === 1 ? 1 : 2;
  const line = kernel.length ? kernel : Array.from({ length: columns.kernel }, () => 1);
  return {
    mode,
    dims,
    rows: dims === 1 ? { ...SINGLE_ROW } : { ...columns },
    columns,
    linked: true,
    kernel: dims === 1 ? [line] : line.map((a) => line.map((b) => a * b)),
    input,
    ceilMode,
    probe: 0,
  };
}

const ones = (size: number): Grid => grid(size, size, () => 1);

export const PRESETS: Preset[] = [
  {
    id: "digits",
    name: "One digit per tap",
    settings: settings({ columns: { stride: 2 }, kernel: [1, 10, 100], input: [[1, 2, 3]] }),
    note:
      "The taps 1, 10 and 100 keep apart what each one adds: 102 is 2 through the first tap and 1 through the last. Stride 2 under a " +
      "kernel of 3 makes every second output a sum of two.",
  },
  {
    id: "checkerboard",
    name: "Checkerboard (k3 s2)",
    settings: settings({ columns: { stride: 2 }, kernel: [1, 1, 1], input: ones(4) }),
    note:
      "Ones go in, and 1, 2 and 4 come out: two does not divide three, so windows overlap unevenly. This is the pattern that generated " +
      "images show, after Odena, Dumoulin and Olah (Distill, 2016).",
  },
  {
    id: "clean",
    name: "No checkerboard (k4 s2)",
    settings: settings({ columns: { stride: 2, padding: 2 }, kernel: [1, 1, 1, 1], input: ones(4) }),
    note:
      "Two divides four, so every pixel is met by as many taps, and padding 2 crops the borders where windows are missing. With padding " +
      "1, the usual choice, the outermost pixels have fewer.",
  },
  {
    id: "sums",
    name: "Equal sums, uneven overlap (1 2 1)",
    settings: settings({ columns: { stride: 2, padding: 1 }, kernel: [1, 2, 1], input: [[1, 1, 1, 1]] }),
    note:
      "Two does not divide three, yet there is no checkerboard: the taps of each phase have the same sum, 2. Equal phase sums are the " +
      "criterion; even overlap is only one way to it. Halve these weights and you have linear interpolation.",
  },
  {
    id: "uneven",
    name: "Even overlap, unequal sums (1 2 3 1)",
    settings: settings({ columns: { stride: 2 }, kernel: [1, 2, 3, 1], input: [[1, 1, 1, 1]] }),
    note: "Two divides four and every interior pixel meets two taps, yet 4, 3, 4, 3 comes out: the phase sums are 4 and 3.",
  },
  {
    id: "bilinear",
    name: "Bilinear upsampling (k4 s2)",
    settings: settings({ columns: { stride: 2, padding: 1 }, kernel: [1, 3, 3, 1], input: [[4, 8, 12, 0]] }),
    note:
      "Weights 1, 3, 3, 1 over 4 are bilinear interpolation by two, so divide the outputs by 4. Both phases sum to 4; only the border " +
      "pixels, which lack a neighbour, are too dark. In two dimensions, divide by 16.",
  },
  {
    id: "dead",
    name: "A dead phase (k3 s2 d2)",
    settings: settings({ columns: { stride: 2, dilation: 2 }, kernel: [1, 1, 1], input: [[1, 2, 3]] }),
    note:
      "Stride 2 and dilation 2 share a divisor, so all taps fall on every second pixel, and the others stay zero whatever the weights " +
      "are.",
  },
  {
    id: "output-padding",
    name: "output_padding above padding",
    settings: settings({ columns: { stride: 2, outputPadding: 1 }, kernel: [1, 1, 1], input: [[1, 1, 1]] }),
    note:
      "With padding 0 there is no cropped column to give back, so output_padding 1 appends a column that no tap reaches: only a bias " +
      "would show there. It is not padding of anything that goes in.",
  },
  {
    id: "same",
    name: "SAME, one pixel off",
    settings: settings({ columns: { stride: 2, padding: 1, outputPadding: 1 }, kernel: [1, 10, 100], input: [[1, 2, 3]] }),
    note:
      "Twice the size, by padding 1 and output_padding 1: the first column is cropped. TensorFlow's SAME crops the last one instead, " +
      "which no padding and output_padding can say: its result begins 1, 10, 102, one pixel off from this one.",
  },
  {
    id: "gaps",
    name: "Stride above kernel (k2 s3)",
    settings: settings({ columns: { stride: 3 }, kernel: [1, 2], input: [[1, 2, 3]] }),
    note: "Windows do not touch: between them lie pixels that no tap reaches, and the convolution of this stride never reads them.",
  },
  {
    id: "fcn",
    name: "A crop off the centre, as in FCN-32s",
    settings: settings({ columns: { stride: 2, padding: 2, outputPadding: 1 }, kernel: [1, 3, 3, 1], input: [[1, 2, 3, 4, 5]] }),
    note:
      "Padding of a transposed convolution is a crop: here 2 in front and, as output_padding gives one back, 1 behind. FCN-32s " +
      "upsamples with kernel 64, stride 32 and no padding, then crops 19 pixels in front and what is too much behind; the offset " +
      "follows from the padding of 100 that it began with, and is not half of what is too much.",
  },
  {
    id: "unet",
    name: "U-Net's up-convolution (k2 s2)",
    settings: settings({
      columns: { stride: 2 },
      kernel: [1, 2],
      input: [
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9],
      ],
    }),
    note:
      "Kernel and stride are equal, so windows neither overlap nor leave gaps: each pixel becomes one 2 x 2 block, and C C^T is a " +
      "multiple of the identity. Of a constant image, it makes a pattern of blocks unless the four weights are equal.",
  },
  {
    id: "conv",
    name: "A convolution with stride 2",
    settings: settings({
      mode: "conv",
      columns: { stride: 2, padding: 1 },
      kernel: [1, 2, 1],
      input: grid(5, 5, (i, j) => ((5 * i + j) % 9) + 1),
    }),
    note:
      "The other direction: C itself. Its rows are the windows, its columns say which windows see a pixel, and its transpose is what " +
      "carries gradients back.",
  },
  {
    id: "pool",
    name: "Max-pool and unpool, as in SegNet",
    settings: settings({
      mode: "pool",
      columns: { kernel: 2, stride: 2 },
      input: [
        [3, 1, 4, 1, 5],
        [9, 2, 6, 5, 3],
        [5, 8, 9, 7, 9],
        [3, 2, 3, 8, 4],
        [6, 2, 6, 4, 3],
      ],
    }),
    note:
      "The last row and column fill no window, so 5 becomes 2, and unpooling must be told that it was 5, not 4. Windows do not overlap: " +
      "every winner returns to its place.",
  },
  {
    id: "pool-overlap",
    name: "Pooling windows that overlap",
    settings: settings({ mode: "pool", columns: { kernel: 3, stride: 2 }, input: [[1, 2, 5, 3, 0]] }),
    note:
      "The 5 wins both windows. Unpooling that overwrites gives 5; the transpose adds and gives 10, and so must the gradient of " +
      "pooling.",
  },
];

export const DEFAULT: Settings = PRESETS[0]!.settings;
