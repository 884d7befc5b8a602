/** How many windows reach each pixel of the large image, whether that is constant, and why. */

import type { Grid, Result } from "../core/types.ts";
import { at, count, h, largest, shape } from "./dom.ts";
import { GridView } from "./grid.ts";
import { caption } from "./view-grids.ts";
import type { Context, Marks, View } from "./marks.ts";
import { lead, section } from "./section.ts";

export class OverlapView implements View {
  readonly id = "overlap";
  readonly title = "Overlap";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly grid: GridView;
  private readonly verdict = h("p", { class: "verdict", id: "overlap-verdict" });
  private large: "input" | "output" = "output";

  constructor(context: Context) {
    this.grid = new GridView({ id: "overlap-grid", select: (i, j) => context.select({ kind: this.large, at: [i, j] }) });
    this.element = section(this.id, "Overlap count (T8)", this.lead, this.grid.element, this.verdict);
  }

  show(result: Result): boolean {
    const { mode, settings } = result;
    this.large = mode === "conv_transpose" ? "output" : "input";
    const counts = mode === "pool" ? result.overlap : result.overlap.counts;
    this.lead.textContent =
      mode === "pool"
        ? "How many windows see each pixel."
        : mode === "conv"
          ? "How many windows read each pixel of x. It is the diagonal of PᵀP, where P is im2col: col2im(im2col(x)) multiplies each pixel by this number."
          : "How many copies of the kernel fall on each output, whatever the weights are.";
    const flat = counts.flat();
    const constant = mode === "pool" ? Math.max(...flat) === Math.min(...flat) : result.overlap.everywhere;
    const inside = mode !== "pool" && result.overlap.interior;
    caption(this.grid, "windows per pixel", constant ? "constant" : inside ? "constant inside, less at the border" : "not constant");
    this.element.classList.toggle("half", shape(counts).columns <= 9);
    showCounts(this.grid, counts, settings.dims);
    this.verdict.textContent = mode === "pool" ? overlapOfPool(counts) : result.overlap.sentence;
    return true;
  }

  mark(marks: Marks): void {
    this.grid.mark((i, j) => marks.large(i, j));
  }
}

/** Counts as a skyline in one dimension, as shades beside the numbers in two. */
export function showCounts(grid: GridView, counts: Grid, dims: 1 | 2): void {
  const most = Math.max(1, largest(counts));
  const table = grid.element.querySelector("table")!;
  table.classList.toggle("stacks", dims === 1);
  grid.show({
    ...shape(counts),
    text: (i, j) => String(at(counts, [i, j])),
    columnHead: (j) => String(j),
    ...(dims === 2 ? { rowHead: (i: number) => String(i) } : {}),
    look: (i, j) => (at(counts, [i, j]) === 0 ? "blank" : "heat"),
    share: (i, j) => (0.85 * at(counts, [i, j])) / most,
    fill: (td, i, j) => {
      const value = at(counts, [i, j]);
      if (dims === 2) td.textContent = String(value);
      else {
        const blocks = Array.from({ length: value }, () => h("i"));
        td.replaceChildren(h("span", { class: "stack", "aria-hidden": "true" }, ...blocks), String(value));
      }
    },
  });
}

function overlapOfPool(counts: Grid): string {
  const values = counts.flat();
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const missed = values.filter((value) => value === 0).length;
  if (high <= 1)
    return `No pixel is seen twice, so no index repeats, and unpooling needs no adding up.${missed ? ` ${count(missed, "pixel")} in no window at all.` : ""}`;
  return `Pixels are seen ${low} to ${high} times: the same pixel can win in several windows, and then its index repeats.`;
}
