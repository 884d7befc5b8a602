/** One dimension only: every product in its place. A transposed convolution adds up columns, a convolution adds up rows. */

import type { Result } from "../core/types.ts";
import { number } from "./dom.ts";
import { GridView } from "./grid.ts";
import { caption, letters } from "./view-grids.ts";
import type { Context, Marks, View } from "./marks.ts";
import { lead, section } from "./section.ts";

export class ProductsView implements View {
  readonly id = "products";
  readonly title = "Products";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly grid: GridView;
  private rows = 0;
  private columns = 0;

  constructor(private readonly context: Context) {
    this.grid = new GridView({ id: "products-grid", select: (i, j) => this.pick(i, j) });
    this.element = section(this.id, "Every product in its place", this.lead, this.grid.element);
  }

  show(result: Result): boolean {
    if (result.mode === "pool" || result.settings.dims === 2) return false;
    const { matrix, input, output, mode } = result;
    const transposed = mode === "conv_transpose";
    const [x, y] = [input[0]!, output[0]!];
    this.rows = matrix.entries.length;
    this.columns = matrix.entries[0]!.length;
    const names = letters(mode);
    this.lead.textContent = transposed
      ? "Row i is the kernel times y[i], put down where pixel i belongs: long multiplication. Read down a column to see all that falls on one output."
      : "Row i is the kernel times the pixels it lies on when it stands at output i. Read along a row to see all that one output gathers.";
    caption(this.grid, "w·" + names.source, transposed ? "columns add up to the outputs" : "rows add up to the outputs");
    const product = (i: number, j: number) => matrix.entries[i]![j]! * x[transposed ? i : j]!;
    const [bottom, right] = [transposed ? this.rows : -1, transposed ? -1 : this.columns];
    this.grid.show({
      rows: this.rows + (transposed ? 1 : 0),
      columns: this.columns + (transposed ? 0 : 1),
      text: (i, j) => (i === bottom ? number(y[j]!) : j === right ? number(y[i]!) : matrix.taps[i]![j]! < 0 ? "" : number(product(i, j))),
      name: (i, j) => (i !== bottom && j !== right && matrix.taps[i]![j]! < 0 ? "no tap" : ""),
      look: (i, j) => (i === bottom || j === right ? "output total" : matrix.taps[i]![j]! < 0 ? "blank" : "kernel"),
      rowHead: (i) => (i === bottom ? "sum" : transposed ? `y[${i}] = ${number(x[i]!)}` : `Cx[${i}]`),
      columnHead: (j) => (j === right ? "sum" : transposed ? String(j) : `x[${j}] = ${number(x[j]!)}`),
    });
    return true;
  }

  mark(marks: Marks): void {
    this.grid.mark((i, j) => {
      if (i === this.rows) return marks.output(0, j);
      if (j === this.columns) return marks.output(0, i);
      return marks.entry(i, j);
    });
  }

  private pick(i: number, j: number): void {
    if (i === this.rows) this.context.select({ kind: "output", at: [0, j] });
    else if (j === this.columns) this.context.select({ kind: "output", at: [0, i] });
    else this.context.select({ kind: "entry", row: i, column: j });
  }
}
