/** The transposed convolution as an ordinary one: zeros inserted, kernel flipped, stride 1. */

import type { ConvResult, Result } from "../core/types.ts";
import { at, count, h, number, replace, same, shape } from "./dom.ts";
import { GridView } from "./grid.ts";
import { caption } from "./view-grids.ts";
import type { Context, Marks, View } from "./marks.ts";
import { lead, section } from "./section.ts";

export class ZeroView implements View {
  readonly id = "zero-insertion";
  readonly title = "Zero insertion";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly padded: GridView;
  private readonly flipped: GridView;
  private readonly output: GridView;
  private readonly verdict = h("p", { class: "verdict", id: "zero-verdict" });
  private result: ConvResult | null = null;

  constructor(context: Context) {
    this.padded = new GridView({
      id: "zero-padded",
      tone: "none",
      select: (i, j) => {
        const source = this.result?.zeroInsertion.padded[i]?.[j]?.source;
        if (source) context.selectSmall(source[0], source[1]);
        else context.select(null);
      },
    });
    this.flipped = new GridView({
      id: "zero-flipped",
      tone: "kernel",
      select: (i, j) => {
        const { rows, columns } = shape(this.result?.kernel ?? [[0]]);
        context.select({ kind: "tap", at: [rows - 1 - i, columns - 1 - j] });
      },
    });
    this.output = new GridView({ id: "zero-output", tone: "none", select: (i, j) => context.selectLarge(i, j) });
    this.element = section(
      this.id,
      "Zero insertion and the flipped kernel (T5)",
      this.lead,
      h(
        "div",
        { class: "figures" },
        this.padded.element,
        h("div", { class: "operand" }, h("span", { class: "sign headless", "aria-hidden": "true" }, "∗"), this.flipped.element),
        h("div", { class: "operand" }, h("span", { class: "sign", "aria-hidden": "true" }, "="), this.output.element),
      ),
      this.verdict,
    );
  }

  show(result: Result): boolean {
    this.result = null;
    if (result.mode === "pool") return false;
    this.result = result;
    const { settings, zeroInsertion, mode } = result;
    const two = settings.dims === 2;
    const { padded, flipped, output } = zeroInsertion;
    const which = mode === "conv" ? "Cᵀy, the way back of this convolution," : "The same output";
    const { dilation } = settings.columns;
    replace(
      this.lead,
      `${which} as an ordinary convolution of stride 1: zeros go between the pixels, a margin around them, and the kernel is read backwards`,
      dilation > 1 || settings.rows.dilation > 1 ? ", its taps still a dilation apart. " : ". ",
      "C has the kernel in its rows and Cᵀ in its columns, as it is. Zero insertion computes Cᵀ row by row, and along a row its taps stand backwards.",
    );
    const heads = (grid: readonly (readonly unknown[])[]) => ({
      ...shape(grid),
      columnHead: (j: number) => String(j),
      ...(two ? { rowHead: (i: number) => String(i) } : {}),
    });
    const small = mode === "conv" ? "y" : "y, the input";
    caption(
      this.padded,
      `${small}, stretched and padded`,
      two ? `${padded.length} × ${padded[0]?.length ?? 0}` : `${padded[0]?.length ?? 0} long`,
    );
    this.padded.show({
      ...heads(padded),
      text: (i, j) => number(at(padded, [i, j]).value),
      look: (i, j) => {
        const { kind } = at(padded, [i, j]);
        return kind === "value" ? (mode === "conv" ? "output" : "input") : kind;
      },
      name: (i, j) => {
        const { kind } = at(padded, [i, j]);
        return kind === "value" ? "" : kind === "inserted" ? "0, inserted" : "0, margin";
      },
    });
    caption(this.flipped, "kernel, flipped", "");
    this.flipped.show({ ...shape(flipped), text: (i, j) => number(at(flipped, [i, j])) });
    caption(this.output, mode === "conv" ? "Cᵀy" : "output Cᵀy", "computed this way");
    this.output.show({
      ...heads(output),
      text: (i, j) => number(at(output, [i, j])),
      look: () => (mode === "conv" ? "input" : "output"),
    });
    this.verdict.textContent = this.margins();
    return true;
  }

  mark(marks: Marks): void {
    const result = this.result;
    if (!result) return;
    const { padded, output } = result.zeroInsertion;
    const chosen = marks.selection;
    const large = result.mode === "conv" ? "input" : "output";
    const under =
      chosen?.kind === large && chosen.at[0] < output.length && chosen.at[1] < (output[0]?.length ?? 0)
        ? result.zeroInsertion.window(chosen.at)
        : [];
    const { rows, columns } = shape(result.kernel);
    this.padded.mark(
      (i, j) => {
        const { source } = at(padded, [i, j]);
        return source ? marks.small(source[0], source[1]) : "";
      },
      (i, j) => under.some((position) => same(position, [i, j])),
    );
    this.flipped.mark((i, j) => marks.tap(rows - 1 - i, columns - 1 - j));
    this.output.mark((i, j) => marks.large(i, j));
  }

  /** How the margins come about, in numbers. */
  private margins(): string {
    const { settings, zeroInsertion, impliedOutputPadding, mode } = this.result!;
    const { pads } = zeroInsertion;
    const extra = mode === "conv" ? impliedOutputPadding : [settings.rows.outputPadding, settings.columns.outputPadding];
    const side = (name: string, amount: number) =>
      amount < 0 ? `${count(-amount, "pixel")} cropped ${name}` : `${count(amount, "zero")} ${name}`;
    const axis = (a: Settings, before: string, after: string, front: number, back: number, op: number) => {
      const span = a.dilation * (a.kernel - 1) + 1;
      return (
        `${a.stride === 1 ? "Nothing goes" : a.stride === 2 ? "1 zero goes" : `${a.stride - 1} zeros go`} between neighbours (stride − 1). ` +
        `The margin is dilation·(kernel − 1) − padding = ${span - 1} − ${a.padding} = ${number(front)}: ${side(before, front)}; ` +
        `and output_padding ${op} more ${after}: ${side(after, back)}.`
      );
    };
    type Settings = typeof settings.columns;
    const columns = axis(settings.columns, "on the left", "on the right", pads.left, pads.right, extra[1]!);
    if (settings.dims === 1) return columns;
    if (settings.linked) return `Along each axis: ${axis(settings.columns, "in front", "behind", pads.left, pads.right, extra[1]!)}`;
    const rows = axis(settings.rows, "above", "below", pads.top, pads.bottom, extra[0]!);
    return `Columns: ${columns} Rows: ${rows}`;
  }
}
