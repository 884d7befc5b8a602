/** Input, kernel and output, each output with its sum; the one place where numbers are edited. It stays when settings do not fit together. */

import type { Limits, Position, Result, Settings, Term } from "../core/types.ts";
import { at, count, factor, h, number, place, replace, shape } from "./dom.ts";
import { GridView } from "./grid.ts";
import type { Context, Marks } from "./marks.ts";
import { lead, section } from "./section.ts";

export const MISFIT = "These settings do not fit together. ";

export interface Editing {
  settings(): Settings;
  setKernel(at: Position, value: number): void;
  setInput(at: Position, value: number): void;
  limits: Limits;
}

export class GridsView {
  readonly id = "grids";
  readonly title = "Sums";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly input: GridView;
  private readonly kernel: GridView;
  private readonly output: GridView;
  private readonly inputField: ValueField;
  private readonly kernelField: ValueField;
  private readonly operator = h("span", { class: "sign", "aria-hidden": "true" });
  private readonly equals = h("span", { class: "sign", "aria-hidden": "true" }, "=");
  private readonly trouble = h("div", { class: "trouble", id: "trouble", hidden: true });
  private readonly chosen = h("p", { class: "sum", id: "sum" });
  private readonly body = h("tbody");
  private readonly summary = h("summary");
  private readonly all: HTMLDetailsElement;
  private result: Result | null = null;
  private stale = true;
  private dims = 0;

  constructor(
    private readonly context: Context,
    editing: Editing,
  ) {
    const { limits } = editing;
    const inputOf = (i: number, j: number) => editing.settings().input[i]?.[j] ?? 0;
    const kernelOf = (i: number, j: number) => editing.settings().kernel[i]?.[j] ?? 0;
    this.input = new GridView({
      id: "input",
      tone: "input",
      select: (i, j) => context.select({ kind: "input", at: [i, j] }),
      edit: { get: inputOf, set: (i, j, value) => editing.setInput([i, j], value), limits: limits.value },
    });
    this.kernel = new GridView({
      id: "kernel",
      tone: "kernel",
      select: (i, j) => context.select({ kind: "tap", at: [i, j] }),
      edit: { get: kernelOf, set: (i, j, value) => editing.setKernel([i, j], value), limits: limits.value },
    });
    this.output = new GridView({ id: "output", tone: "output", select: (i, j) => context.select({ kind: "output", at: [i, j] }) });
    this.inputField = new ValueField("input-value", limits.value, inputOf, (position, value) => editing.setInput(position, value));
    this.kernelField = new ValueField("kernel-value", limits.value, kernelOf, (position, value) => editing.setKernel(position, value));
    this.input.element.append(this.inputField.element);
    this.kernel.element.append(this.kernelField.element);
    this.all = h(
      "details",
      { ontoggle: () => this.list() },
      this.summary,
      h(
        "div",
        { class: "sums", tabindex: 0, role: "group", "aria-label": "Every output with its sum" },
        h("table", { id: "sums" }, this.body),
      ),
    );
    this.body.addEventListener("click", (event) => {
      const row = event.target instanceof Element ? event.target.closest("tr") : null;
      const [i, j] = (row?.dataset["at"] ?? "").split(",").map(Number);
      if (i !== undefined && j !== undefined) this.context.select({ kind: "output", at: [i, j] });
    });
    this.element = section(
      this.id,
      "Input, kernel, output",
      this.lead,
      h(
        "div",
        { class: "figures" },
        this.input.element,
        h("div", { class: "operand" }, this.operator, this.kernel.element),
        h("div", { class: "operand" }, this.equals, this.output.element),
      ),
      this.trouble,
      this.chosen,
      this.all,
      h(
        "p",
        { class: "note legend" },
        h("span", {}, h("i", { class: "selected", "aria-hidden": "true" }), "selected"),
        h("span", {}, h("i", { class: "related", "aria-hidden": "true" }), "belongs to it"),
        h("span", {}, h("i", { class: "step", "aria-hidden": "true" }), "touched by the window or the step"),
      ),
    );
  }

  /** The controls' own grids, whether or not the settings fit together. */
  edit(settings: Settings): void {
    const names = letters(settings.mode);
    const pool = settings.mode === "pool";
    const { dims } = settings;
    const image = (grid: number[][]) => ({
      ...shape(grid),
      text: (i: number, j: number) => number(at(grid, [i, j])),
      columnHead: (j: number) => String(j),
      ...(dims === 2 ? { rowHead: (i: number) => String(i) } : {}),
    });
    caption(this.input, `Input ${names.input}`, size(settings.input));
    this.input.show(image(settings.input));
    caption(this.kernel, "Kernel w", size(settings.kernel));
    this.kernel.show(image(settings.kernel));
    this.kernel.element.hidden = pool;
    this.operator.textContent = pool ? "" : settings.mode === "conv" ? "∗" : "∗ᵀ";
    this.operator.hidden = pool;
    this.equals.textContent = pool ? "→" : "=";
    this.inputField.show(settings, names.input);
    this.kernelField.show(settings, "w");
    replace(this.lead, ...explain(settings));
  }

  fail(sentence: string): void {
    this.result = null;
    replace(this.trouble, h("p", {}, h("strong", {}, MISFIT), sentence));
    this.trouble.hidden = false;
    for (const element of [this.output.element, this.equals, this.chosen, this.all]) element.hidden = true;
  }

  show(result: Result): boolean {
    this.result = result;
    const { settings, output } = result;
    const names = letters(settings.mode);
    this.trouble.hidden = true;
    for (const element of [this.output.element, this.equals, this.chosen, this.all]) element.hidden = false;
    caption(this.output, `Output ${names.output}`, size(output));
    const values = output.flat();
    const [low, high] = [Math.min(...values), Math.max(...values)];
    this.output.show({
      ...shape(output),
      text: (i, j) => number(at(output, [i, j])),
      look: () => "heat",
      share: (i, j) => (high > low ? 0.1 + (0.75 * (at(output, [i, j]) - low)) / (high - low) : 0.4),
      columnHead: (j) => String(j),
      ...(settings.dims === 2 ? { rowHead: (i: number) => String(i) } : {}),
    });
    const { rows, columns } = shape(output);
    this.summary.textContent = `All ${count(rows * columns, "sum")}, written out`;
    if (settings.mode === "pool") this.summary.textContent = `All ${count(rows * columns, "window")}, written out`;
    if (settings.dims !== this.dims) {
      this.dims = settings.dims;
      this.all.open = settings.dims === 1;
    }
    this.stale = true;
    this.list();
    return true;
  }

  mark(marks: Marks): void {
    const { selection } = marks;
    this.input.mark((i, j) => marks.input(i, j));
    this.kernel.mark((i, j) => marks.tap(i, j));
    if (selection?.kind === "input") this.inputField.move(selection.at);
    if (selection?.kind === "tap") this.kernelField.move(selection.at);
    const result = this.result;
    if (!result) return;
    this.output.mark((i, j) => marks.output(i, j));
    const { rows, columns } = shape(result.output);
    const first = marks.related.outputs[0];
    const shown: Position =
      selection?.kind === "output" && selection.at[0] < rows && selection.at[1] < columns ? selection.at : (first ?? [0, 0]);
    const many = marks.related.outputs.length > 1 && selection?.kind !== "output";
    replace(
      this.chosen,
      ...sum(result, shown, marks),
      many ? ` (the first of ${marks.related.outputs.length} outputs that take part)` : "",
    );
    for (const row of this.body.rows) {
      const [i = 0, j = 0] = (row.dataset["at"] ?? "").split(",").map(Number);
      const mark = marks.output(i, j);
      if (mark) row.dataset["mark"] = mark;
      else delete row.dataset["mark"];
    }
  }

  private list(): void {
    if (!this.all.open || !this.stale || !this.result) return;
    this.stale = false;
    const result = this.result;
    const names = letters(result.settings.mode);
    const rows = result.output.flatMap((line, i) =>
      line.map((_, j) =>
        h(
          "tr",
          { "data-at": `${i},${j}` },
          h("th", { scope: "row" }, `${names.cell}${place(result.settings.dims, [i, j])}`),
          h("td", { class: "sum" }, ...sum(result, [i, j], null)),
        ),
      ),
    );
    this.body.replaceChildren(...rows);
  }
}

/** The large image is x and the small one y, whichever way the map runs, so that Cx and Cᵀy mean the same everywhere. */
export function letters(mode: Settings["mode"]): { input: string; output: string; cell: string; source: string } {
  if (mode === "conv") return { input: "x", output: "Cx", cell: "Cx", source: "x" };
  if (mode === "pool") return { input: "x", output: "Gx", cell: "Gx", source: "x" };
  return { input: "y", output: "Cᵀy", cell: "Cᵀy", source: "y" };
}

function size(grid: number[][]): string {
  const { rows, columns } = shape(grid);
  return rows === 1 ? `${columns} long` : `${rows} × ${columns}`;
}

export function caption(grid: GridView, name: string, hint: string): void {
  replace(grid.caption, `${name} `, h("span", { class: "hint" }, hint));
}

function explain(settings: Settings): (Node | string)[] {
  if (settings.mode === "conv")
    return [
      "The kernel slides over x, a stride at a time, and each output is the sum of what lies under it, tap times pixel. Nothing is flipped.",
    ];
  if (settings.mode === "pool")
    return [
      "Each output is the largest pixel of its window; the first one wins a tie. Where it stood is kept as a flat index, for unpooling.",
    ];
  return [
    "Each pixel of y lays down a copy of the kernel, times its value, a stride after the one before; each output is the sum of what falls on it.",
  ];
}

/** "102 = w[2]·y[0] + w[0]·y[1] = 100·1 + 1·2", as elements; terms that involve the selection are framed. */
function sum(result: Result, output: Position, marks: Marks | null): Node[] {
  const { dims } = result.settings;
  const names = letters(result.mode);
  const value = h("span", { class: "r" }, number(at(result.output, output)));
  const head = marks ? [h("span", {}, `${names.cell}${place(dims, output)} = `)] : [];
  if (result.mode === "pool") {
    const window = result.windows[output[0]]![output[1]]!;
    const seen = window.cells.map((cell) => number(at(result.input, cell))).join(", ");
    const how = `max(${seen}) = `;
    const where = ` at ${names.source}${place(dims, window.winner)}, index ${window.index}`;
    const ties = window.ties.length ? `; ${count(window.ties.length, "tie")}, the first wins` : "";
    return [...head, h("span", {}, how), value, h("span", {}, where + ties)];
  }
  const terms = result.terms(output);
  if (terms.length === 0) return [...head, h("span", {}, "no tap reaches it = "), value];
  const symbols = (term: Term) => [
    h("span", { class: "w" }, `w${place(dims, term.tap)}`),
    "·",
    term.inside ? h("span", { class: "v" }, `${names.source}${place(dims, term.input)}`) : h("span", {}, "0 (padding)"),
  ];
  const numbers = (term: Term) => [
    h("span", { class: "w" }, factor(term.weight)),
    "·",
    h("span", { class: "v" }, factor(term.value)),
    term.inside ? null : h("sup", {}, " pad"),
  ];
  const joined = (parts: (term: Term) => (Node | string | null)[]) =>
    terms.flatMap((term, index) => {
      const chosen = marks !== null && marks.selection?.kind !== "output" && involves(marks, term);
      const span = h("span", { class: chosen ? "term chosen" : "term" }, ...parts(term));
      return index ? [document.createTextNode(" + "), span] : [span];
    });
  const written = joined(numbers);
  const lettered = marks ? [...joined(symbols), document.createTextNode(" = ")] : [];
  return [...head, ...lettered, ...written, document.createTextNode(" = "), value];
}

function involves(marks: Marks, term: Term): boolean {
  const { selection } = marks;
  if (!selection) return false;
  if (selection.kind === "tap") return term.tap[0] === selection.at[0] && term.tap[1] === selection.at[1];
  if (selection.kind === "input") return term.input[0] === selection.at[0] && term.input[1] === selection.at[1];
  return marks.tap(...term.tap) !== "" && (!term.inside || marks.input(...term.input) !== "");
}

/** A number field for one cell of a grid, for those who do not type into cells. */
class ValueField {
  readonly element: HTMLElement;
  private readonly name = h("span");
  private readonly field: HTMLInputElement;
  private position: Position = [0, 0];
  private settings: Settings | null = null;
  private letter = "";

  constructor(
    id: string,
    limits: readonly [number, number],
    private readonly get: (i: number, j: number) => number,
    set: (at: Position, value: number) => void,
  ) {
    const typed = () => {
      if (this.field.value.trim() === "") return; // empty, or a lone minus
      const value = Math.round(Number(this.field.value));
      set(this.position, Math.min(limits[1], Math.max(limits[0], value)));
    };
    this.field = h("input", {
      id,
      type: "number",
      min: limits[0],
      max: limits[1],
      step: 1,
      oninput: typed,
      onchange: () => this.refresh(),
    });
    this.element = h("div", { class: "edit" }, h("label", {}, this.name, this.field));
  }

  show(settings: Settings, letter: string): void {
    this.settings = settings;
    this.letter = letter;
    this.refresh();
  }

  move(position: Position): void {
    this.position = position;
    this.refresh();
  }

  private refresh(): void {
    const settings = this.settings;
    if (!settings) return;
    const grid = this.letter === "w" ? settings.kernel : settings.input;
    const { rows, columns } = shape(grid);
    this.position = [Math.min(this.position[0], rows - 1), Math.min(this.position[1], columns - 1)];
    this.name.textContent = `${this.letter}${place(settings.dims, this.position)} =`;
    const text = String(this.get(...this.position));
    if (Number(this.field.value) !== Number(text) || this.field.value === "") this.field.value = text;
  }
}
