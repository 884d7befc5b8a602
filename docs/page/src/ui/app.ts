/** The page: one state, from the address and back to it; controls change it, views show it. */

import { change, check, DEFAULT, LIMITS, PRESETS, related, run, setInput, setKernel } from "../core/index.ts";
import type { Position, Preset, Result, Selection, Settings } from "../core/types.ts";
import { read, write } from "./address.ts";
import { Controls, Presets, type Fill } from "./controls.ts";
import { h, replace, shape } from "./dom.ts";
import { Marks, NOTHING, type Context, type View } from "./marks.ts";
import { copied, CallsView, SizeView } from "./view-size.ts";
import { GridsView, MISFIT } from "./view-grids.ts";
import { InnerView } from "./view-inner.ts";
import { MatrixView } from "./view-matrix.ts";
import { OverlapView } from "./view-overlap.ts";
import { PhasesView } from "./view-phases.ts";
import { PoolView } from "./view-pool.ts";
import { ProductsView } from "./view-products.ts";
import { StepperView } from "./view-stepper.ts";
import { ZeroView } from "./view-zero.ts";

const NOTHING_SELECTED = "Nothing is selected. Click a number, or walk through a grid with the arrow keys.";

export class App implements Context {
  private settings: Settings = DEFAULT;
  private selection: Selection = null;
  private result: Result | null = null;
  private trouble = ""; // why there is no result
  private readonly controls: Controls;
  private readonly presets: Presets;
  private readonly grids: GridsView;
  private readonly stepper: StepperView;
  private readonly views: View[];
  private readonly notice = h("div", { class: "notice", role: "alert", id: "notice", hidden: true });
  private readonly links = h("ul");
  private readonly readout = h("p", { id: "readout", "aria-live": "polite" });
  private readonly clear = h("button", { type: "button", id: "clear", onclick: () => this.select(null) }, "Clear");
  private readonly bar = h("div", { class: "readout", role: "group", "aria-label": "Selection" }, this.readout, this.clear);
  private readonly status = h("p", { id: "status", class: "visually-hidden", role: "status" });

  constructor(root: HTMLElement) {
    this.controls = new Controls(LIMITS, {
      mode: (mode) => this.edit(change(this.settings, { mode })),
      dims: (dims) => this.edit(change(this.settings, { dims })),
      linked: (linked) => this.edit(change(this.settings, { linked })),
      axis: (side, parameter, value) => this.edit(change(this.settings, { [side]: { [parameter]: value } })),
      ceilMode: (ceilMode) => this.edit(change(this.settings, { ceilMode })),
      fillKernel: (fill) => this.edit({ ...this.settings, kernel: filled(this.settings.kernel, fill) }),
      fillInput: (fill) => this.edit({ ...this.settings, input: filled(this.settings.input, fill) }),
      share: () => copied(location.href),
      reset: () => this.start(PRESETS[0]!),
    });
    this.presets = new Presets(PRESETS, (preset) => this.start(preset));
    this.grids = new GridsView(this, {
      settings: () => this.settings,
      setKernel: (position, value) => this.edit(setKernel(this.settings, position, value)),
      setInput: (position, value) => this.edit(setInput(this.settings, position, value)),
      limits: LIMITS,
    });
    this.stepper = new StepperView(this, () => this.remember());
    this.views = [
      new PoolView(this),
      new ProductsView(this),
      new MatrixView(this),
      new ZeroView(this),
      new PhasesView(this),
      new OverlapView(this),
      new SizeView(),
      this.stepper,
      new InnerView(this, (probe) => this.edit(change(this.settings, { probe })), LIMITS.probe),
      new CallsView(),
    ];
    const jump = h("nav", { class: "jump", "aria-label": "Views" }, this.links);
    const column = h(
      "div",
      { id: "views" },
      this.notice,
      jump,
      this.grids.element,
      ...this.views.map((view) => view.element),
      this.bar,
      this.status,
    );
    root.append(this.presets.element, this.controls.element, column);
    root.hidden = false;
    column.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.select(null);
    });
    document.querySelector(".skip")?.addEventListener("click", (event) => this.jump(event, this.grids.id));
    addEventListener("hashchange", () => this.load());
    this.load();
  }

  select(selection: Selection): void {
    this.selection = selection;
    this.mark();
    this.remember();
  }

  selectSmall(i: number, j: number): void {
    this.select({ kind: this.settings.mode === "conv_transpose" ? "input" : "output", at: [i, j] });
  }

  selectLarge(i: number, j: number): void {
    this.select({ kind: this.settings.mode === "conv_transpose" ? "output" : "input", at: [i, j] });
  }

  /** From the address. An empty one opens the first preset. */
  private load(): void {
    if (location.hash.replace(/^#/, "") === "") {
      this.show(PRESETS[0]!.settings, example(PRESETS[0]!), 0);
      return;
    }
    const { settings, selection, step, notice } = read(location.hash);
    this.show(settings, notice === undefined ? selection : example(PRESETS[0]!), step);
    if (notice !== undefined) this.say(notice);
  }

  private start(preset: Preset): void {
    this.show(preset.settings, example(preset), 0);
    this.remember();
  }

  private edit(settings: Settings): void {
    this.show(settings, this.selection, this.stepper.index);
    this.remember();
  }

  private show(settings: Settings, selection: Selection, step: number): void {
    this.settings = settings;
    this.say(null);
    this.controls.show(settings);
    const state = JSON.stringify(settings);
    this.presets.show(PRESETS.find((preset) => JSON.stringify(preset.settings) === state));
    const checked = check(settings);
    this.result = checked.ok ? run(settings) : null;
    this.trouble = checked.ok ? "" : checked.sentence;
    this.selection = fits(settings, this.result, selection) ? selection : null;
    this.grids.edit(settings);
    const shown: { id: string; title: string }[] = [this.grids];
    if (this.result) this.grids.show(this.result);
    else this.grids.fail(this.trouble);
    this.stepper.go(step, true);
    for (const view of this.views) {
      const there = this.result !== null && view.show(this.result);
      view.element.hidden = !there;
      if (there) shown.push(view);
    }
    this.stepper.go(step, true);
    this.links.replaceChildren(
      ...shown.map(({ id, title }) => h("li", {}, h("a", { href: `#${id}`, onclick: (event) => this.jump(event, id) }, title))),
    );
    if (this.result) {
      const { rows, columns } = shape(this.result.output);
      this.status.textContent = `The output is ${rows === 1 ? columns : `${rows} by ${columns}`}.`;
    } else this.status.textContent = ""; // the bar says it
    this.mark();
  }

  private mark(): void {
    const { result, selection } = this;
    const found = result ? related(result, selection) : NOTHING;
    const marks = new Marks(selection, found, this.settings.mode === "conv_transpose");
    this.grids.mark(marks);
    if (result) for (const view of this.views) if (!view.element.hidden) view.mark(marks);
    const words = this.trouble ? MISFIT + this.trouble : selection ? found.sentence : NOTHING_SELECTED;
    this.bar.classList.toggle("misfit", this.trouble !== "");
    if (this.readout.textContent !== words) this.readout.textContent = words;
    this.clear.hidden = selection === null;
  }

  private remember(): void {
    const hash = `#${write({ settings: this.settings, selection: this.selection, step: this.stepper.index })}`;
    if (hash === location.hash) return;
    try {
      history.replaceState(null, "", hash);
    } catch {
      setTimeout(() => this.remember(), 1000); // Safari refuses after a hundred of them in half a minute
    }
  }

  /** Within the page, without touching the address, which holds the state. */
  private jump(event: Event, id: string): void {
    event.preventDefault();
    const heading = document.getElementById(`${id}-title`);
    if (!heading) return;
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    heading.closest("section")?.scrollIntoView({ block: "start" });
  }

  private say(notice: string | null): void {
    this.notice.hidden = notice === null;
    if (notice === null) this.notice.replaceChildren();
    else
      replace(this.notice, h("span", {}, notice), h("button", { type: "button", id: "dismiss", onclick: () => this.say(null) }, "Dismiss"));
  }
}

/** A selection that shows at once how the views hang together: the output in the middle. */
function example(preset: Preset): Selection {
  const { rows, columns } = shape(run(preset.settings).output);
  return { kind: "output", at: [Math.floor((rows - 1) / 2), Math.floor(columns / 3)] };
}

function fits(settings: Settings, result: Result | null, selection: Selection): boolean {
  if (!selection) return true;
  const within = (grid: readonly (readonly unknown[])[], [i, j]: Position) => grid[i]?.[j] !== undefined;
  if (selection.kind === "input") return within(settings.input, selection.at);
  if (selection.kind === "tap") return settings.mode !== "pool" && within(settings.kernel, selection.at);
  if (!result) return false;
  if (selection.kind === "output") return within(result.output, selection.at);
  return result.mode !== "pool" && within(result.matrix.entries, [selection.row, selection.column]);
}

function filled(grid: number[][], fill: Fill): number[][] {
  const { rows, columns } = shape(grid);
  const along = (index: number, length: number) => Math.min(index, length - 1 - index) + 1;
  return grid.map((line, i) =>
    line.map((_, j) => {
      if (fill === "ones") return 1;
      if (fill === "count") return i * columns + j + 1;
      if (fill === "impulse") return i === Math.floor((rows - 1) / 2) && j === Math.floor((columns - 1) / 2) ? 1 : 0;
      return along(i, rows) * along(j, columns);
    }),
  );
}
