import type { Line, Plane } from "./geometry.ts";
import { at, count, grid, positions, zeros } from "./grid.ts";
import { addColumn, col2im, frameOf, framed, im2col, unframed, windowAt } from "./im2col.ts";
import { counted, factor, listed, num, place } from "./text.ts";
import type { Grid, Position, Stage, Step, Stepper } from "./types.ts";

interface Scene {
  mode: "conv" | "conv_transpose";
  input: Grid;
  kernel: Grid;
  plane: Plane;
  dims: 1 | 2;
}

/** im2col, product and col2im as a film: `at(k)` is the picture after step k, made afresh from the start. */
export function stepperOf(scene: Scene): Stepper {
  const { mode, input, kernel, plane } = scene;
  const frame = frameOf(plane, mode);
  const weights = kernel.flat();
  const smallPixels = positions(plane.rows.small, plane.columns.small);
  const stages: Stage[] = mode === "conv" ? ["im2col", "gemm", "col2im"] : ["gemm", "col2im"];
  const whole =
    mode === "conv" ? im2col(framed(input, frame), plane) : weights.map((weight) => input.flat().map((value) => weight * value));
  const output = mode === "conv" ? productOf(weights, whole, plane) : unframed(col2im(whole, frame, plane), frame, plane);

  function stepAt(index: number): Step {
    if (!Number.isInteger(index) || index < 0 || index >= total) throw new RangeError(`step ${index} is none of 0 to ${total - 1}`);
    const stage = stages[Math.floor(index / smallPixels.length)] ?? "crop";
    const column = stage === "crop" ? -1 : index % smallPixels.length;
    const position: Position = smallPixels[column] ?? [-1, -1];
    const done = (name: Stage): number => Math.min(smallPixels.length, Math.max(0, index + 1 - stages.indexOf(name) * smallPixels.length));
    const filled = done(mode === "conv" ? "im2col" : "gemm");
    const columns = whole.map((row) => row.map((value, k) => (k < filled ? value : null)));
    const product =
      mode === "conv"
        ? grid(plane.rows.small, plane.columns.small, (i, j) => (i * plane.columns.small + j < done("gemm") ? at(output, i, j) : null))
        : input;
    const image = mode === "conv" && stage !== "col2im" ? framed(input, frame) : zeros(frame.rows, frame.columns);
    if (stage === "col2im" || stage === "crop") {
      for (const k of count(done("col2im"))) addColumn(image, whole, k, smallPixels[k]!, plane);
    }
    const touched = stage === "im2col" || stage === "col2im" ? windowAt(position, plane) : [];
    const values = column < 0 ? [] : whole.map((row) => row[column]!);
    return { index, stage, sentence: tell(scene, stage, position, values, output), column, position, touched, columns, product, image };
  }

  const total = stages.length * smallPixels.length + (mode === "conv" ? 0 : 1);
  return {
    frame,
    image: { rows: plane.rows.large, columns: plane.columns.large },
    taps: weights.length,
    positions: smallPixels.length,
    count: total,
    at: stepAt,
    output,
  };
}

/** The kernel as one row, times the columns. */
function productOf(weights: number[], columns: Grid, { rows, columns: line }: Plane): Grid {
  const row = columns[0]!.map((_, k) => weights.reduce((sum, weight, tap) => sum + weight * columns[tap]![k]!, 0));
  return grid(rows.small, line.small, (i, j) => row[i * line.small + j]!);
}

function tell({ mode, input, kernel, plane, dims }: Scene, stage: Stage, position: Position, column: number[], output: Grid): string {
  const where = place(position, dims);
  const values = column.length > 9 ? `its ${column.length} values` : listed(column);
  if (stage === "im2col") return `im2col: window ${where} sees ${values}; they become a column.`;
  if (stage === "gemm" && mode === "conv") {
    const products = kernel.flat().map((weight, tap) => `${tap ? factor(weight) : num(weight)}·${factor(column[tap]!)}`);
    const sum = products.length > 9 ? `${products.length} products` : products.join(" + ");
    return `Product: the kernel's row times column ${where}: ${sum} = ${num(at(output, ...position))}.`;
  }
  if (stage === "gemm")
    return `Product: pixel ${where}, which is ${num(at(input, ...position))}, times each weight gives the column ${values}.`;
  if (stage === "col2im") return `col2im: column ${where} is added back where window ${where} lies.`;
  const crops = (dims === 1 ? [plane.columns] : [plane.rows, plane.columns]).map(cropOf);
  return dims === 1 || crops[0] === crops[1] ? `Crop: ${crops.at(-1)}.` : `Crop: of the rows, ${crops[0]}; of the columns, ${crops[1]}.`;
}

function cropOf({ padding, outputPadding }: Line): string {
  if (padding === 0 && outputPadding === 0) return "padding 0 cuts nothing";
  const front = `padding ${padding} cuts ${padding} in front`;
  if (outputPadding === 0) return `${front} and ${padding} behind`;
  const behind = padding - outputPadding;
  const rest = behind < 0 ? `adds ${counted(-behind, "zero")} behind that no tap reaches` : `leaves ${behind} to cut behind`;
  return `${front}, and output_padding ${outputPadding} ${rest}`;
}
