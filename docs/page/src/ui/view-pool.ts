/** Max-pooling's indices, and what unpooling makes of them: added up, and overwritten. */

import type { PoolResult, Position, Result } from "../core/types.ts";
import { at, h, number, shape } from "./dom.ts";
import { GridView } from "./grid.ts";
import { caption } from "./view-grids.ts";
import type { Context, Marks, View } from "./marks.ts";
import { lead, section } from "./section.ts";

export class PoolView implements View {
  readonly id = "unpool";
  readonly title = "Unpooling";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly indices: GridView;
  private readonly unpooled: GridView;
  private readonly overwritten: GridView;
  private readonly wins: GridView;
  private readonly verdict = h("p", { class: "verdict", id: "pool-verdict" });
  private result: PoolResult | null = null;

  constructor(context: Context) {
    const input = (i: number, j: number) => context.select({ kind: "input", at: [i, j] });
    this.indices = new GridView({ id: "pool-indices", tone: "kernel", select: (i, j) => context.select({ kind: "output", at: [i, j] }) });
    this.unpooled = new GridView({ id: "pool-unpooled", tone: "none", select: input });
    this.overwritten = new GridView({ id: "pool-overwritten", tone: "none", select: input });
    this.wins = new GridView({ id: "pool-wins", tone: "none", select: input });
    this.element = section(
      this.id,
      "Indices and unpooling (T15, T16)",
      this.lead,
      h("div", { class: "figures" }, this.indices.element, this.unpooled.element, this.overwritten.element, this.wins.element),
      this.verdict,
    );
  }

  show(result: Result): boolean {
    this.result = null;
    if (result.mode !== "pool") return false;
    this.result = result;
    const two = result.settings.dims === 2;
    this.lead.textContent =
      "Pooling at fixed winners is a gather G: it copies one pixel for each window. Unpooling is its transpose: it puts the value back where the index says, " +
      "zeros elsewhere, and adds up where an index repeats. Overwriting, which keeps only the last of them, is not the transpose; PyTorch overwrites, and promises no order.";
    const heads = (grid: readonly (readonly unknown[])[]) => ({
      ...shape(grid),
      columnHead: (j: number) => String(j),
      ...(two ? { rowHead: (i: number) => String(i) } : {}),
    });
    const wide = shape(result.input).columns;
    const won = (i: number, j: number) => at(result.wins, [i, j]) > 0;
    const differs = (i: number, j: number) => at(result.unpooled, [i, j]) !== at(result.overwritten, [i, j]);
    caption(this.indices, "indices", two ? `row · ${wide} + column` : "places in x");
    this.indices.show({ ...heads(result.indices), text: (i, j) => number(at(result.indices, [i, j])) });
    caption(this.unpooled, "unpooled, added", "GᵀGx");
    this.unpooled.show({
      ...heads(result.unpooled),
      text: (i, j) => number(at(result.unpooled, [i, j])),
      look: (i, j) => (won(i, j) ? "output" : "inserted"),
      name: (i, j) => (won(i, j) ? "" : "0, not a winner"),
    });
    caption(this.overwritten, "unpooled, overwritten", "≠ where it differs");
    this.overwritten.show({
      ...heads(result.overwritten),
      text: (i, j) => `${differs(i, j) ? "≠ " : ""}${number(at(result.overwritten, [i, j]))}`,
      look: (i, j) => (won(i, j) ? "output" : "inserted"),
      name: (i, j) => (differs(i, j) ? `${number(at(result.overwritten, [i, j]))}, not ${number(at(result.unpooled, [i, j]))}` : ""),
    });
    caption(this.wins, "windows won", "per pixel");
    this.wins.show({
      ...heads(result.wins),
      text: (i, j) => String(at(result.wins, [i, j])),
      look: (i, j) => (won(i, j) ? "input" : "inserted"),
    });
    this.verdict.textContent = result.sentence;
    return true;
  }

  mark(marks: Marks): void {
    const { result } = this;
    if (!result) return;
    const { selection } = marks;
    const window = selection?.kind === "output" ? result.windows[selection.at[0]]?.[selection.at[1]] : undefined;
    const winner: Position | undefined = window?.winner;
    const step = (i: number, j: number) => winner !== undefined && winner[0] === i && winner[1] === j;
    this.indices.mark((i, j) => marks.output(i, j));
    for (const grid of [this.unpooled, this.overwritten, this.wins]) grid.mark((i, j) => marks.input(i, j), step);
  }
}
