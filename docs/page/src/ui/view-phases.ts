/** Sub-pixel phases: which taps reach which outputs, and whether the phases' sums are equal. */

import type { Phase, Result } from "../core/types.ts";
import { at, count, factor, h, number, place } from "./dom.ts";
import { GridView } from "./grid.ts";
import { caption } from "./view-grids.ts";
import type { Context, Marks, View } from "./marks.ts";
import { lead, section } from "./section.ts";

export class PhasesView implements View {
  readonly id = "phases";
  readonly title = "Phases";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly list = h("div", { class: "phases" });
  private readonly verdict = h("p", { class: "verdict", id: "phases-verdict" });
  private cards: Card[] = [];

  constructor(private readonly context: Context) {
    this.element = section(this.id, "Phases and their sums (T6, T7, T9)", this.lead, this.list, this.verdict);
  }

  show(result: Result): boolean {
    if (result.mode === "pool") return false;
    const { phases, settings } = result;
    const { parts } = phases;
    const two = settings.dims === 2;
    this.lead.textContent =
      `Stride ${two ? `${settings.rows.stride} × ${settings.columns.stride}` : settings.columns.stride} splits the large image into ` +
      `${count(parts.length, "phase")}, and each phase meets its own taps only. Every one is a small ordinary convolution of y (its taps read backwards, as above); woven together they ` +
      `are Cᵀy. On a constant image a phase gives its sum of taps: where the sums differ, a checkerboard shows.`;
    while (this.cards.length < parts.length) this.cards.push(new Card(this.cards.length, this.context));
    this.cards.length = parts.length;
    const most = Math.max(1, ...parts.map((part) => Math.abs(part.sum)));
    const tone = result.mode === "conv" ? "input" : "output";
    parts.forEach((part, index) => this.cards[index]!.show(part, settings.dims, most, tone));
    this.list.replaceChildren(...this.cards.map((card) => card.element));
    this.verdict.textContent = phases.sentence;
    return true;
  }

  mark(marks: Marks): void {
    for (const card of this.cards) card.mark(marks);
  }
}

class Card {
  readonly element: HTMLElement;
  private readonly title = h("h3");
  private readonly taps = h("p", { class: "sum" });
  private readonly fill = h("i");
  private readonly sum = h("b");
  private readonly grid: GridView;
  private part: Phase | null = null;
  private columns = 1;

  constructor(index: number, context: Context) {
    this.grid = new GridView({
      id: `phase-${index}`,
      tone: "none",
      select: (i, j) => {
        const pixel = this.pixel(i, j);
        if (pixel) context.selectLarge(pixel[0], pixel[1]);
      },
    });
    this.element = h(
      "section",
      { class: "phase" },
      this.title,
      this.taps,
      h("div", { class: "bar" }, h("span", { class: "track", "aria-hidden": "true" }, this.fill), h("span", {}, "sum ", this.sum)),
      this.grid.element,
    );
  }

  show(part: Phase, dims: 1 | 2, most: number, tone: "input" | "output"): void {
    this.part = part;
    const dead = part.taps.length === 0;
    const name = dims === 1 ? `${part.r[1]}` : `${part.r[0]}, ${part.r[1]}`;
    this.title.textContent = `Phase ${name}${dead ? ": dead" : ""}`;
    this.element.classList.toggle("dead", dead);
    const letters = part.taps.map((tap) => `w${place(dims, tap)}`).join(" + ");
    this.taps.textContent = dead
      ? "no tap reaches it: always 0"
      : `${letters} = ${part.weights.map((w, i) => (i ? factor(w) : number(w))).join(" + ")}`;
    this.sum.textContent = number(part.sum);
    this.fill.style.cssText = `left: 0; width: ${(100 * Math.abs(part.sum)) / most}%`;
    this.columns = new Set(part.outputs.map(([, j]) => j)).size || 1;
    const rows = part.outputs.length / this.columns;
    caption(this.grid, "", part.outputs.length ? count(part.outputs.length, "pixel") : "no pixel in this image");
    const first = part.outputs[0];
    const index = (i: number, j: number) => i * this.columns + j;
    this.grid.show({
      rows,
      columns: this.columns,
      text: (i, j) => number(part.values[index(i, j)]!),
      look: () => tone,
      ...(first
        ? {
            columnHead: (j: number) => String(part.outputs[j]![1]),
            ...(dims === 2 ? { rowHead: (i: number) => String(part.outputs[index(i, 0)]![0]) } : {}),
          }
        : {}),
      dense: dims === 2,
    });
  }

  mark(marks: Marks): void {
    const part = this.part;
    if (!part) return;
    const { selection } = marks;
    const pixel = (i: number, j: number) => at([part.outputs], [0, i * this.columns + j]);
    this.grid.mark((i, j) => marks.large(...pixel(i, j)));
    const tap = (selection?.kind === "tap" || selection?.kind === "entry") && part.taps.some((position) => marks.tap(...position) !== "");
    const chosen = part.outputs.some((position) => marks.large(...position) === "selected");
    if (tap || chosen) this.element.dataset["mark"] = "related";
    else delete this.element.dataset["mark"];
  }

  private pixel(i: number, j: number): readonly [number, number] | undefined {
    return this.part?.outputs[i * this.columns + j];
  }
}
