/** The matrix C and its transpose: as tables while they are small, as a picture of their taps when they are not. */

import type { ConvResult, Position, Result } from "../core/types.ts";
import { count, h, number, place, replace, svg } from "./dom.ts";
import { GridView } from "./grid.ts";
import { caption } from "./view-grids.ts";
import type { Context, Marks, View } from "./marks.ts";
import { lead, section } from "./section.ts";

const LARGEST_TABLE = 27; // rows and columns

export class MatrixView implements View {
  readonly id = "matrix";
  readonly title = "Matrix";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly plain: GridView;
  private readonly transpose: GridView;
  private readonly pictures: [Picture, Picture];
  private readonly tables: HTMLElement;
  private readonly drawn: HTMLElement;
  private readonly row: HTMLInputElement;
  private readonly column: HTMLInputElement;
  private readonly shown = h("output", { id: "entry" });
  private result: ConvResult | null = null;

  constructor(context: Context) {
    const select = (row: number, column: number) => context.select({ kind: "entry", row, column });
    this.plain = new GridView({ id: "matrix-c", tone: "kernel", select });
    this.transpose = new GridView({ id: "matrix-ct", tone: "kernel", select: (i, j) => select(j, i) });
    this.pictures = [new Picture("C", select), new Picture("Cᵀ", (i, j) => select(j, i))];
    const typed = () => {
      const { rows, columns } = this.size();
      const [row, column] = [Number(this.row.value), Number(this.column.value)];
      if (row >= 0 && row < rows && column >= 0 && column < columns) select(Math.floor(row), Math.floor(column));
    };
    this.row = h("input", { id: "entry-row", type: "number", min: 0, value: 0, oninput: typed });
    this.column = h("input", { id: "entry-column", type: "number", min: 0, value: 0, oninput: typed });
    this.tables = h("div", { class: "figures" }, this.plain.element, this.transpose.element);
    const legend = "Filled: a positive weight. Hollow: negative, or small and hollow for zero. Lines part the rows of the images.";
    this.drawn = h(
      "div",
      { class: "figures" },
      h(
        "div",
        {},
        this.pictures[0].element,
        h("div", { class: "edit" }, h("label", {}, "entry of C: row", this.row), h("label", {}, "column", this.column), this.shown),
        h("p", { class: "note" }, legend),
      ),
      this.pictures[1].element,
    );
    this.element = section(this.id, "The matrix C and its transpose (T1)", this.lead, this.tables, this.drawn);
  }

  show(result: Result): boolean {
    this.result = null;
    if (result.mode === "pool") return false;
    this.result = result;
    const { matrix, settings } = result;
    const { rows, columns } = this.size();
    const transposed = result.mode === "conv_transpose";
    replace(
      this.lead,
      `C has a row for each pixel of the small image and a column for each pixel of the large one. Row i holds the kernel where window i stands. `,
      `The transpose holds the same entries, rows and columns exchanged: nothing is flipped, and nothing is inverted. `,
      transposed ? "This page now computes Cᵀy." : "This page now computes Cx.",
    );
    const small = Math.max(rows, columns) <= LARGEST_TABLE;
    this.tables.hidden = !small;
    this.drawn.hidden = small;
    if (small) {
      const two = settings.dims === 2;
      const head = (letter: string, wide: number) => (index: number) =>
        two ? `${Math.floor(index / wide)},${index % wide}` : `${letter}[${index}]`;
      const [y, x] = [head("y", result.small[0]!.length), head("x", result.large.columns)];
      const dense = columns > 10 || rows > 10;
      caption(this.plain, "C", `${rows} × ${columns}, ${transposed ? "" : "Cx is the output, "}rows y, columns x`);
      caption(this.transpose, "Cᵀ", `${columns} × ${rows}, ${transposed ? "Cᵀy is the output, " : ""}rows x, columns y`);
      const cell = (row: number, column: number) => ({ value: matrix.entries[row]![column]!, tap: matrix.taps[row]![column]! });
      const text = (row: number, column: number) => (cell(row, column).tap < 0 ? "·" : number(cell(row, column).value));
      const look = (row: number, column: number) => (cell(row, column).tap < 0 ? "blank" : "");
      const name = (row: number, column: number) => (cell(row, column).tap < 0 ? "0, no tap" : "");
      this.plain.show({ rows, columns, text, look, name, rowHead: y, columnHead: x, dense });
      this.transpose.show({
        rows: columns,
        columns: rows,
        text: (i, j) => text(j, i),
        look: (i, j) => look(j, i),
        name: (i, j) => name(j, i),
        rowHead: x,
        columnHead: y,
        dense,
      });
    } else {
      this.row.max = String(rows - 1);
      this.column.max = String(columns - 1);
      const dots: Dot[] = [];
      matrix.taps.forEach((line, i) => line.forEach((tap, j) => tap >= 0 && dots.push({ at: [i, j], value: matrix.entries[i]![j]! })));
      const what = `${count(dots.length, "entry", "entries")} with a tap, ${number(rows * columns - dots.length)} without`;
      const [narrow, wide] = [result.small[0]!.length, result.large.columns];
      this.pictures[0].show(rows, columns, dots, what, [narrow, wide]);
      const turned = dots.map((dot): Dot => ({ at: [dot.at[1], dot.at[0]], value: dot.value }));
      this.pictures[1].show(columns, rows, turned, what, [wide, narrow]);
    }
    return true;
  }

  mark(marks: Marks): void {
    const result = this.result;
    if (!result) return;
    if (!this.tables.hidden) {
      this.plain.mark((i, j) => marks.entry(i, j));
      this.transpose.mark((i, j) => marks.entry(j, i));
      return;
    }
    const { selection, related } = marks;
    const chosen: Position | null = selection?.kind === "entry" ? [selection.row, selection.column] : null;
    const entries = related.entries.map((entry): Position => [entry.row, entry.column]);
    this.pictures[0].mark(entries, chosen);
    this.pictures[1].mark(
      entries.map(([i, j]) => [j, i]),
      chosen && [chosen[1], chosen[0]],
    );
    if (chosen) {
      if (document.activeElement !== this.row) this.row.value = String(chosen[0]);
      if (document.activeElement !== this.column) this.column.value = String(chosen[1]);
      const tap = result.matrix.taps[chosen[0]]![chosen[1]]!;
      const wide = result.kernel[0]!.length;
      const value = number(result.matrix.entries[chosen[0]]![chosen[1]]!);
      this.shown.textContent =
        tap < 0 ? "= 0, no tap" : `= ${value} = w${place(result.settings.dims, [Math.floor(tap / wide), tap % wide])}`;
    } else this.shown.textContent = "";
  }

  private size(): { rows: number; columns: number } {
    const entries = this.result?.matrix.entries;
    return { rows: entries?.length ?? 0, columns: entries?.[0]?.length ?? 0 };
  }
}

interface Dot {
  at: Position;
  value: number;
}

/** The taps of a large matrix as squares: filled where positive, hollow where negative or zero; framed where selected. */
class Picture {
  readonly element: HTMLElement;
  private readonly caption = h("figcaption");
  private readonly box = h("div", { class: "scroll", tabindex: 0, role: "group" });
  private readonly related = svg("path", { class: "related" });
  private readonly bands = svg("path", { class: "band" });
  private readonly frame = svg("path", { class: "frame" });
  private rows = 1;
  private columns = 1;
  private unit = 1; // pixels of the screen for an entry

  constructor(
    private readonly name: string,
    private readonly select: (row: number, column: number) => void,
  ) {
    this.element = h("figure", { class: "grid picture" }, this.caption, this.box);
  }

  show(rows: number, columns: number, dots: Dot[], what: string, block: [number, number]): void {
    this.rows = rows;
    this.columns = columns;
    replace(this.caption, `${this.name} `, h("span", { class: "hint" }, `${rows} × ${columns}`));
    const unit = (this.unit = Math.max(4, Math.min(16, Math.floor(620 / Math.max(rows, columns)))));
    const squares = (keep: (value: number) => boolean, inset: number) => {
      const side = 1 - 2 * inset;
      return dots
        .filter((dot) => keep(dot.value))
        .map(({ at: [i, j] }) => `M${j + inset} ${i + inset}h${side}v${side}h${-side}z`)
        .join("");
    };
    const lines = (from: number, to: number, line: (at: number) => string) =>
      Array.from({ length: Math.ceil(to / from) - 1 }, (_, index) => line((index + 1) * from)).join("");
    const parts = lines(block[0], rows, (at) => `M0 ${at}h${columns}`) + lines(block[1], columns, (at) => `M${at} 0v${rows}`);
    const label = `The matrix ${this.name}, ${rows} rows and ${columns} columns, as a picture: ${what}.`;
    const picture = svg(
      "svg",
      { role: "img", "aria-label": label, viewBox: `0 0 ${columns} ${rows}`, width: columns * unit, height: rows * unit },
      this.bands,
      svg("path", { class: "blocks", d: parts }),
      svg("path", { class: "tap", d: squares((value) => value > 0, 0.08) }),
      svg("path", { class: "tap negative", d: squares((value) => value < 0, 0.16) }),
      svg("path", { class: "tap zero", d: squares((value) => value === 0, 0.3) }),
      this.related,
      this.frame,
    );
    picture.addEventListener("click", (event) => {
      const box = picture.getBoundingClientRect();
      const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
      const column = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
      if (row >= 0 && row < this.rows && column >= 0 && column < this.columns) this.select(row, column);
    });
    this.box.setAttribute("aria-label", `Picture of ${this.name}`);
    this.box.replaceChildren(picture);
  }

  mark(entries: Position[], chosen: Position | null): void {
    this.related.setAttribute("d", entries.map(([i, j]) => `M${j} ${i}h1v1h-1z`).join(""));
    this.frame.setAttribute("d", chosen ? `M${chosen[1] - 0.2} ${chosen[0] - 0.2}h1.4v1.4h-1.4z` : "");
    const first = chosen ?? entries[0];
    if (first) this.reveal(first);
    this.bands.setAttribute(
      "d",
      chosen ? `M0 ${chosen[0]}h${this.columns}v1h${-this.columns}zM${chosen[1]} 0v${this.rows}h1v${-this.rows}z` : "",
    );
  }

  private reveal([i, j]: Position): void {
    const [x, y] = [(j + 0.5) * this.unit, (i + 0.5) * this.unit];
    const { scrollLeft, scrollTop, clientWidth, clientHeight } = this.box;
    if (x < scrollLeft || x > scrollLeft + clientWidth) this.box.scrollLeft = x - clientWidth / 2;
    if (y < scrollTop || y > scrollTop + clientHeight) this.box.scrollTop = y - clientHeight / 2;
  }
}
