/**
 * A table of numbers that can be walked with the arrow keys. It is one stop of the Tab key; arrows, Home and End move and select, Enter and
 * Space select, a click selects; where cells can be edited, digits, minus and Backspace do.
 */

import { h } from "./dom.ts";

export type Mark = "" | "related" | "selected";
export type Tone = "input" | "kernel" | "output" | "none";

/** What a grid shows. */
export interface Cells {
  rows: number;
  columns: number;
  text(i: number, j: number): string;
  look?(i: number, j: number): string; // classes of a cell
  share?(i: number, j: number): number; // of the heat behind a number, 0 to 1, where the look is "heat"
  name?(i: number, j: number): string; // what a screen reader says, where the text is not enough; "" otherwise
  rowHead?(i: number): string;
  columnHead?(j: number): string;
  fill?(td: HTMLTableCellElement, i: number, j: number): void; // instead of text
  dense?: boolean;
  tone?: Tone;
}

export interface GridOptions {
  id: string;
  tone?: Tone;
  select?(i: number, j: number): void;
  edit?: { get(i: number, j: number): number; set(i: number, j: number, value: number): void; limits: readonly [number, number] };
}

const MOVES: Record<string, readonly [number, number]> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

export class GridView {
  readonly element: HTMLElement;
  readonly caption = h("figcaption");
  private readonly scroll = h("div", { class: "scroll" });
  private readonly table: HTMLTableElement;
  private cells: HTMLTableCellElement[][] = [];
  private texts: string[][] = [];
  private marks: Mark[][] = [];
  private heads = "";
  private active: [number, number] = [0, 0];
  private typed = "";

  constructor(private readonly options: GridOptions) {
    const interactive = options.select !== undefined;
    this.caption.id = `${options.id}-caption`;
    this.table = h("table", {
      id: options.id,
      class: "cells",
      role: interactive ? "grid" : "table",
      "aria-labelledby": this.caption.id,
      "aria-readonly": interactive ? String(!options.edit) : undefined,
    });
    this.scroll.append(this.table);
    this.element = h("figure", { class: `grid ${options.tone ?? "none"}` }, this.caption, this.scroll);
    if (!interactive) return;
    this.table.addEventListener("click", (event) => {
      const found = this.find(event.target);
      if (found) this.move(found[0], found[1]);
    });
    this.table.addEventListener("keydown", (event) => this.key(event));
    this.table.addEventListener("focusin", (event) => {
      const found = this.find(event.target);
      if (found && (found[0] !== this.active[0] || found[1] !== this.active[1])) this.activate(found[0], found[1]);
    });
    this.table.addEventListener("focusout", () => (this.typed = ""));
  }

  show(cells: Cells): void {
    const heads = JSON.stringify([
      cells.rows,
      cells.columns,
      Array.from({ length: cells.rows }, (_, i) => cells.rowHead?.(i)),
      Array.from({ length: cells.columns }, (_, j) => cells.columnHead?.(j)),
    ]);
    if (heads !== this.heads) {
      this.heads = heads;
      this.build(cells);
    }
    if (cells.tone) this.element.className = `grid ${cells.tone}`;
    let digits = 1;
    for (let i = 0; i < cells.rows; i++) {
      for (let j = 0; j < cells.columns; j++) {
        const td = this.cells[i]![j]!;
        const text = cells.text(i, j);
        digits = Math.max(digits, text.length);
        if (cells.share) td.style.setProperty("--share", cells.share(i, j).toFixed(3));
        if (cells.fill) cells.fill(td, i, j);
        else if (this.texts[i]![j] !== text) td.textContent = text;
        this.texts[i]![j] = text;
        const look = cells.look?.(i, j) ?? "";
        if (td.className !== look) td.className = look;
        const name = cells.name?.(i, j) ?? "";
        if (name) td.setAttribute("aria-label", name);
        else td.removeAttribute("aria-label");
      }
    }
    this.table.classList.toggle("dense", cells.dense ?? cells.columns > 16);
    this.table.style.setProperty("--digits", String(digits));
  }

  /** Outline cells; `step` marks what a step of the stepper touches. */
  mark(of: (i: number, j: number) => Mark, step?: (i: number, j: number) => boolean): void {
    let first: [number, number] | null = null;
    let chosen: [number, number] | null = null;
    for (let i = 0; i < this.cells.length; i++) {
      for (let j = 0; j < this.cells[i]!.length; j++) {
        const td = this.cells[i]![j]!;
        const mark = of(i, j);
        if (mark && !first) first = [i, j];
        if (mark === "selected" && !chosen) chosen = [i, j];
        if (this.marks[i]![j] !== mark) {
          this.marks[i]![j] = mark;
          if (mark) td.dataset["mark"] = mark;
          else delete td.dataset["mark"];
          if (mark === "selected" && this.options.select) td.setAttribute("aria-selected", "true");
          else td.removeAttribute("aria-selected");
          if (mark === "related") td.setAttribute("aria-description", "belongs to the selection");
          else td.removeAttribute("aria-description");
        }
        if (step) td.toggleAttribute("data-step", step(i, j));
      }
    }
    const to = chosen ?? first;
    if (!to) return;
    if (this.options.select && !this.table.contains(document.activeElement)) this.activate(to[0], to[1]);
    this.reveal(this.cells[to[0]]![to[1]]!);
  }

  focus(): void {
    this.cells[this.active[0]]?.[this.active[1]]?.focus();
  }

  private build(cells: Cells): void {
    const held = this.table.contains(document.activeElement);
    const interactive = this.options.select !== undefined;
    this.cells = [];
    this.texts = [];
    this.marks = [];
    const rows: HTMLTableRowElement[] = [];
    if (cells.columnHead) {
      const row = h("tr", {}, cells.rowHead ? h("th", { scope: "col" }, h("span", { class: "visually-hidden" }, "row")) : null);
      for (let j = 0; j < cells.columns; j++) row.append(h("th", { scope: "col" }, cells.columnHead(j)));
      rows.push(row);
    }
    for (let i = 0; i < cells.rows; i++) {
      const row = h("tr");
      if (cells.rowHead) row.append(h("th", { scope: "row" }, cells.rowHead(i)));
      const line: HTMLTableCellElement[] = [];
      for (let j = 0; j < cells.columns; j++) {
        const td = h("td", { "data-at": `${i},${j}`, tabindex: interactive ? -1 : undefined });
        line.push(td);
        row.append(td);
      }
      this.cells.push(line);
      this.texts.push(line.map(() => ""));
      this.marks.push(line.map(() => ""));
      rows.push(row);
    }
    this.table.replaceChildren(h("tbody", {}, ...rows));
    if (!interactive || cells.rows === 0 || cells.columns === 0) return;
    this.activate(Math.min(this.active[0], cells.rows - 1), Math.min(this.active[1], cells.columns - 1));
    if (held) this.focus();
  }

  private find(target: EventTarget | null): [number, number] | null {
    const td = target instanceof Element ? target.closest<HTMLElement>("td[data-at]") : null;
    if (!td || !this.table.contains(td)) return null;
    const [i = 0, j = 0] = td.dataset["at"]!.split(",").map(Number);
    return [i, j];
  }

  private activate(i: number, j: number): void {
    const old = this.cells[this.active[0]]?.[this.active[1]];
    if (old) old.tabIndex = -1;
    this.active = [i, j];
    this.cells[i]![j]!.tabIndex = 0;
  }

  private move(i: number, j: number): void {
    this.typed = "";
    this.activate(i, j);
    this.focus();
    this.options.select?.(i, j);
  }

  private key(event: KeyboardEvent): void {
    if (event.altKey || event.metaKey) return;
    const [i, j] = this.active;
    const [rows, columns] = [this.cells.length, this.cells[0]?.length ?? 0];
    const step = MOVES[event.key];
    if (step && !event.ctrlKey) {
      const to = [i + step[0], j + step[1]] as const;
      if (to[0] >= 0 && to[0] < rows && to[1] >= 0 && to[1] < columns) this.move(to[0], to[1]);
    } else if (event.key === "Home") this.move(event.ctrlKey ? 0 : i, 0);
    else if (event.key === "End") this.move(event.ctrlKey ? rows - 1 : i, columns - 1);
    else if (event.key === "Enter" || event.key === " ") this.move(i, j);
    else if (this.options.edit && !event.ctrlKey && /^([0-9-]|Backspace|Delete)$/.test(event.key)) this.type(event.key, i, j);
    else return;
    event.preventDefault();
  }

  /** Digits as they are typed: "1", "2" is 12; a digit too many starts again; minus changes the sign; Backspace takes the last one away. */
  private type(key: string, i: number, j: number): void {
    const edit = this.options.edit!;
    const [low, high] = edit.limits;
    const allowed = (text: string) => Number(text) >= low && Number(text) <= high;
    if (key === "Delete") this.typed = "";
    else if (key === "Backspace") this.typed = (this.typed || String(edit.get(i, j))).slice(0, -1);
    else if (key === "-") {
      const now = this.typed || String(edit.get(i, j) || "");
      this.typed = now.startsWith("-") ? now.slice(1) : `-${now}`;
    } else {
      const longer = this.typed.replace(/^(-?)0+/, "$1") + key;
      this.typed = allowed(longer) ? longer : key;
    }
    const value = Number(this.typed.replace(/^-$/, "0"));
    const text = this.typed;
    edit.set(i, j, Math.min(high, Math.max(low, value)) || 0);
    this.typed = text; // setting draws the page anew, and may move the focus for a moment
  }

  /** Scrolls the grid's own box, never the page. */
  private reveal(td: HTMLElement): void {
    const box = this.scroll;
    if (box.scrollWidth > box.clientWidth) {
      const left = td.offsetLeft - box.offsetLeft;
      if (left < box.scrollLeft || left + td.offsetWidth > box.scrollLeft + box.clientWidth) box.scrollLeft = left - box.clientWidth / 2;
    }
    if (box.scrollHeight > box.clientHeight) {
      const top = td.offsetTop - box.offsetTop;
      if (top < box.scrollTop || top + td.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top - box.clientHeight / 2;
    }
  }
}
