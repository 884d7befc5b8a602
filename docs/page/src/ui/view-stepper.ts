/** im2col, matrix product and col2im, one step at a time. */

import type { ConvResult, Result, Stage, Step } from "../core/types.ts";
import { at, h, number, same, shape } from "./dom.ts";
import { GridView } from "./grid.ts";
import { caption } from "./view-grids.ts";
import type { Context, Marks, View } from "./marks.ts";
import { lead, section } from "./section.ts";

const PACE = 900; // milliseconds
const STAGES: Record<Stage, string> = { im2col: "im2col", gemm: "matrix product (GEMM)", col2im: "col2im", crop: "crop" };

export class StepperView implements View {
  readonly id = "stepper";
  readonly title = "Step by step";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly image: GridView;
  private readonly weights: GridView;
  private readonly columns: GridView;
  private readonly product: GridView;
  private readonly sentence = h("p", { class: "step-sentence", id: "step-sentence", "aria-live": "polite" });
  private readonly stages = h("ol", { class: "stages", "aria-label": "Stages" });
  private readonly slider = h("input", { id: "step", type: "range", min: 0, step: 1, oninput: () => this.go(Number(this.slider.value)) });
  private readonly position = h("span", { id: "step-position" });
  private readonly first = h("button", { type: "button", id: "step-first", onclick: () => this.go(0) }, "First");
  private readonly back = h("button", { type: "button", id: "step-back", onclick: () => this.go(this.index - 1) }, "Back");
  private readonly on = h("button", { type: "button", id: "step-on", onclick: () => this.go(this.index + 1) }, "On");
  private readonly last = h("button", { type: "button", id: "step-last", onclick: () => this.go(Infinity) }, "Last");
  private readonly play = h("button", { type: "button", id: "step-play", onclick: () => this.toggle() }, "Play");
  private timer: number | undefined;
  private result: ConvResult | null = null;
  private step: Step | null = null;
  private marks: Marks | null = null;
  index = 0;

  constructor(
    private readonly context: Context,
    private readonly moved: () => void,
  ) {
    this.image = new GridView({ id: "step-image", select: (i, j) => this.pixel(i, j) });
    this.weights = new GridView({ id: "step-weights", tone: "kernel", select: (i, j) => this.tap(this.transposed() ? i : j) });
    this.columns = new GridView({ id: "step-columns", select: (i, j) => this.entry(i, j) });
    this.product = new GridView({ id: "step-product", select: (i, j) => context.selectSmall(i, j) });
    this.element = section(
      this.id,
      "im2col, matrix product, col2im (T13)",
      this.lead,
      h(
        "div",
        { class: "transport", role: "group", "aria-label": "Steps" },
        this.first,
        this.back,
        this.play,
        this.on,
        this.last,
        h("label", {}, "step ", this.slider, this.position),
      ),
      this.stages,
      this.sentence,
      h(
        "div",
        { class: "figures", id: "step-figures" },
        this.image.element,
        this.weights.element,
        this.columns.element,
        this.product.element,
      ),
    );
  }

  show(result: Result): boolean {
    if (result.mode === "pool") {
      this.result = null;
      this.stop();
      return false;
    }
    this.result = result;
    const { stepper } = result;
    const conv = result.mode === "conv";
    this.lead.textContent = conv
      ? "How libraries compute a convolution: every window becomes a column (im2col, a copy), and one matrix product does all sums. Last, to see what the transpose of the copy does, col2im of the same columns: they are added up where they came from."
      : "How libraries compute a transposed convolution: the matrix product writes a column for each pixel, kernel times pixel, and col2im adds the columns up where they overlap. These are the convolution's steps, each transposed, in reverse order.";
    const stages: Stage[] = conv ? ["im2col", "gemm", "col2im"] : ["gemm", "col2im", "crop"];
    this.stages.replaceChildren(...stages.map((stage) => h("li", { "data-stage": stage }, STAGES[stage])));
    const order = conv ? [this.image, this.columns, this.weights, this.product] : [this.product, this.weights, this.columns, this.image];
    const figures = this.image.element.parentElement!;
    order.forEach((grid, place) => {
      if (figures.children[place] !== grid.element) figures.insertBefore(grid.element, figures.children[place] ?? null);
    });
    const taps = result.kernel.flat();
    caption(this.weights, "w", conv ? "as a row" : "as a column");
    this.weights.show({
      rows: conv ? 1 : taps.length,
      columns: conv ? taps.length : 1,
      text: (i, j) => number(taps[conv ? j : i]!),
      dense: taps.length > 9,
    });
    this.slider.max = String(stepper.count - 1);
    this.index = Math.min(this.index, stepper.count - 1);
    if (this.timer !== undefined && this.index === stepper.count - 1) this.stop();
    this.draw();
    return true;
  }

  mark(marks: Marks): void {
    this.marks = marks;
    const { result, step } = this;
    if (!result || !step) return;
    const { frame, image } = result.stepper;
    const width = result.small[0]!.length;
    const wide = result.kernel[0]!.length;
    const inside = (i: number, j: number) => i >= 0 && i < image.rows && j >= 0 && j < image.columns;
    this.image.mark(
      (i, j) => (inside(i - frame.top, j - frame.left) ? marks.large(i - frame.top, j - frame.left) : ""),
      (i, j) => step.touched.some((position) => same(position, [i, j])),
    );
    const tap = (index: number) => marks.tap(Math.floor(index / wide), index % wide);
    this.weights.mark((i, j) => tap(this.transposed() ? i : j));
    this.columns.mark(
      (i, j) => {
        const column = this.largeOf(i, j);
        return column < 0 ? "" : marks.entry(j, column);
      },
      (_, j) => j === step.column,
    );
    this.product.mark(
      (i, j) => marks.small(i, j),
      (i, j) => i * width + j === step.column,
    );
  }

  /** To a step, from the address as well; beyond the ends means the ends. */
  go(index: number, quiet = false): void {
    const count = this.result?.stepper.count ?? 1;
    this.index = Math.max(0, Math.min(count - 1, Number.isFinite(index) ? Math.floor(index) : count - 1));
    if (!quiet) this.moved();
    if (!this.result) return;
    this.draw();
    if (this.marks) this.mark(this.marks);
  }

  private toggle(): void {
    if (this.timer !== undefined) {
      this.stop();
      return;
    }
    const count = this.result?.stepper.count ?? 1;
    if (this.index >= count - 1) this.go(0);
    this.play.textContent = "Pause";
    this.timer = window.setInterval(() => {
      this.go(this.index + 1);
      if (this.index >= (this.result?.stepper.count ?? 1) - 1) this.stop();
    }, PACE);
  }

  private stop(): void {
    window.clearInterval(this.timer);
    this.timer = undefined;
    this.play.textContent = "Play";
  }

  private draw(): void {
    const { result } = this;
    if (!result) return;
    const { stepper } = result;
    const step = stepper.at(this.index);
    this.step = step;
    const conv = result.mode === "conv";
    const { frame, image } = stepper;
    const large = conv ? "input" : "output";
    const edge = (i: number, j: number) =>
      i < frame.top || i >= frame.top + image.rows || j < frame.left || j >= frame.left + image.columns;
    const cropped = step.stage === "crop";
    const adding = step.stage === "col2im" || step.stage === "crop" || !conv;
    caption(this.image, conv ? (adding ? "adding up on zeros" : "x, padded") : cropped ? "Cᵀy, cropped" : "adding up", frameHint(result));
    this.image.show({
      rows: frame.rows,
      columns: frame.columns,
      text: (i, j) => (cropped && edge(i, j) ? "✕" : number(at(step.image, [i, j]))),
      name: (i, j) =>
        edge(i, j) ? `${cropped ? "cut off" : number(at(step.image, [i, j]))}, ${conv ? "padding" : "outside the output"}` : "",
      look: (i, j) => (edge(i, j) ? "outside" : large),
      columnHead: (j) => String(j - frame.left),
      ...(result.settings.dims === 2 ? { rowHead: (i: number) => String(i - frame.top) } : {}),
    });
    caption(this.columns, "columns", `${stepper.taps} × ${stepper.positions}`);
    const wide = result.kernel[0]!.length;
    const width = result.small[0]!.length;
    const two = result.settings.dims === 2;
    const value = (grid: (number | null)[][], i: number, j: number) => {
      const cell = at(grid, [i, j]);
      return cell === null ? "" : number(cell);
    };
    this.columns.show({
      rows: stepper.taps,
      columns: stepper.positions,
      text: (i, j) => value(step.columns, i, j),
      name: (i, j) => (at(step.columns, [i, j]) === null ? "not yet there" : ""),
      look: (i, j) => (at(step.columns, [i, j]) === null ? "waiting" : conv ? "input" : "kernel"),
      rowHead: (i) => (two ? `w[${Math.floor(i / wide)}, ${i % wide}]` : `w[${i}]`),
      columnHead: (j) => (two ? `${Math.floor(j / width)},${j % width}` : String(j)),
      dense: stepper.taps > 9 || stepper.positions > 12,
    });
    caption(this.product, conv ? "Cx = w · columns" : "y, the input", "");
    this.product.show({
      ...shape(step.product),
      text: (i, j) => value(step.product, i, j),
      name: (i, j) => (at(step.product, [i, j]) === null ? "not yet there" : ""),
      look: (i, j) => (at(step.product, [i, j]) === null ? "waiting" : conv ? "output" : "input"),
      columnHead: (j) => String(j),
      ...(two ? { rowHead: (i: number) => String(i) } : {}),
    });
    this.sentence.textContent = step.sentence;
    this.slider.value = String(this.index);
    this.slider.setAttribute("aria-valuetext", `${this.index + 1} of ${stepper.count}: ${STAGES[step.stage]}`);
    this.position.textContent = `${this.index + 1} of ${stepper.count}`;
    for (const stage of this.stages.children) {
      if (stage.getAttribute("data-stage") === step.stage) stage.setAttribute("aria-current", "step");
      else stage.removeAttribute("aria-current");
    }
    this.atEnds(stepper.count);
  }

  /** A button that cannot move stays in the order of focus: it says so instead of vanishing under the reader's finger. */
  private atEnds(count: number): void {
    const start = this.index === 0;
    const end = this.index === count - 1;
    for (const [button, idle] of [
      [this.first, start],
      [this.back, start],
      [this.on, end],
      [this.last, end],
    ] as const)
      button.setAttribute("aria-disabled", String(idle));
  }

  private transposed(): boolean {
    return this.result?.mode === "conv_transpose";
  }

  private tap(index: number): void {
    const wide = this.result?.kernel[0]?.length ?? 1;
    this.context.select({ kind: "tap", at: [Math.floor(index / wide), index % wide] });
  }

  private pixel(i: number, j: number): void {
    const stepper = this.result?.stepper;
    if (!stepper) return;
    const [row, column] = [i - stepper.frame.top, j - stepper.frame.left];
    const inside = row >= 0 && row < stepper.image.rows && column >= 0 && column < stepper.image.columns;
    if (inside) this.context.selectLarge(row, column);
    else this.context.select(null);
  }

  private entry(i: number, j: number): void {
    const column = this.largeOf(i, j);
    if (column < 0) this.tap(i);
    else this.context.select({ kind: "entry", row: j, column });
  }

  /** The large pixel that tap i of window j meets, flat; -1 outside. */
  private largeOf(i: number, j: number): number {
    return this.result?.matrix.taps[j]?.indexOf(i) ?? -1;
  }
}

function frameHint(result: ConvResult): string {
  const { frame, image } = result.stepper;
  if (frame.rows === image.rows && frame.columns === image.columns) return "";
  return result.mode === "conv" ? "hatched: padding" : "hatched: cut off in the end";
}
