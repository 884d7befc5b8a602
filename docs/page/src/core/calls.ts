import { shape } from "./grid.ts";
import { guessedSize } from "./pool.ts";
import type { Axis, Calls, Grid, Settings } from "./types.ts";

/**
 * The same computation as a program for minidcnn and one for PyTorch; one dimension is an image of one row in both.
 * `repeats`: whether an index of max-pooling repeats.
 */
export function callsOf(settings: Settings, repeats: boolean): Calls {
  const lines = settings.mode === "pool" ? poolLines(settings, repeats) : convLines(settings);
  const program = (library: Library, ...imports: string[]): string =>
    [...imports, "", ...lines.map((line) => line(library)).filter((line) => line !== null)].join("\n");
  return {
    minidcnn: program("minidcnn", "import numpy as np", "from minidcnn import Tensor, functional as F"),
    pytorch: program("torch", "import torch", "import torch.nn.functional as F"),
  };
}

type Library = "minidcnn" | "torch";
type LineOfCode = (library: Library) => string | null;

function image(name: string, values: Grid): LineOfCode {
  const lists = values.map((row) => `[${row.join(", ")}]`);
  const list = lists.length === 1 ? `[${lists[0]}]` : `[\n${lists.map((row) => `    ${row},\n`).join("")}]`;
  const [rows, columns] = shape(values);
  const sizes = `(1, 1, ${rows}, ${columns})`;
  return (library) =>
    library === "torch"
      ? `${name} = torch.tensor(${list}, dtype=torch.float64).reshape${sizes}`
      : `${name} = Tensor(np.array(${list}, float).reshape${sizes})`;
}

/** An argument for both axes, as one number where they agree; left out at its default. */
function argument({ dims, rows, columns }: Settings, name: string, key: keyof Axis, standard: number | null): string {
  if ((dims === 1 || rows[key] === standard) && columns[key] === standard) return "";
  const value = dims === 2 && rows[key] === columns[key] ? String(columns[key]) : `(${rows[key]}, ${columns[key]})`;
  return `, ${name}=${value}`;
}

function convLines(settings: Settings): LineOfCode[] {
  const transpose = settings.mode === "conv_transpose";
  const options =
    argument(settings, "stride", "stride", 1) +
    argument(settings, "padding", "padding", 0) +
    (transpose ? argument(settings, "output_padding", "outputPadding", 0) : "") +
    argument(settings, "dilation", "dilation", 1);
  const [from, to, name] = transpose ? ["y", "x", "conv_transpose2d"] : ["x", "y", "conv2d"];
  return [
    image(from, settings.input),
    image("w", settings.kernel),
    () => `${to} = F.${name}(${from}, w${options})`,
    () => `print(${to}.numpy()[0, 0])`,
  ];
}

function poolLines(settings: Settings, repeats: boolean): LineOfCode[] {
  const { dims, rows, columns, ceilMode } = settings;
  const pair = (key: keyof Axis): string =>
    dims === 2 && rows[key] === columns[key] ? String(columns[key]) : `(${rows[key]}, ${columns[key]})`;
  const window = `${pair("kernel")}, stride=${pair("stride")}${argument(settings, "padding", "padding", 0)}`;
  const pooling = `${window}${argument(settings, "dilation", "dilation", 1)}${ceilMode ? ", ceil_mode=True" : ""}, return_indices=True`;
  const tight = [rows, columns].find((axis) => 2 * axis.padding > axis.kernel);
  const refusal = `# PyTorch refuses padding ${tight?.padding}: more than half of kernel ${tight?.kernel}, whatever the dilation`;
  return [
    image("x", settings.input),
    ...(tight ? [(library: Library) => (library === "torch" ? refusal : null)] : []),
    () => `y, indices = F.max_pool2d(x, ${pooling})`,
    unpooling(settings, window, repeats),
    () => 'print(y.numpy()[0, 0], indices.numpy()[0, 0], back, sep="\\n")',
  ];
}

/**
 * Unpooling, by hand where max_unpool2d gives something else: it knows no dilation, refuses a size that is far from its guess, and
 * in PyTorch keeps one of the values at a repeated index, where the transpose adds them.
 */
function unpooling(settings: Settings, window: string, repeats: boolean): LineOfCode {
  const size = `(${settings.rows.size}, ${settings.columns.size})`;
  return (library) => {
    const torch = library === "torch";
    if (unpoolable(settings) && !(torch && repeats))
      return `back = F.max_unpool2d(y, indices, ${window}, output_size=${size}).numpy()[0, 0]`;
    return torch
      ? `back = torch.zeros(${size}, dtype=y.dtype)\nback.view(-1).scatter_add_(0, indices.flatten(), y.flatten())`
      : `back = np.zeros(${size})\nnp.add.at(back.reshape(-1), indices.numpy(), y.numpy())`;
  };
}

/** Whether max_unpool2d accepts the input's size: it must lie within a stride of its guess. */
function unpoolable({ rows, columns, ceilMode }: Settings): boolean {
  return [rows, columns].every((axis) => Math.abs(axis.size - guessedSize(axis, ceilMode)) < axis.stride);
}
