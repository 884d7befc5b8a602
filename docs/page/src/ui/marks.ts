/** One selection, as every view asks for it. */

import type { Position, Related, Result, Selection } from "../core/types.ts";
import type { Mark } from "./grid.ts";

const key = (i: number, j: number): number => i * 4096 + j;

export class Marks {
  readonly inputs: ReadonlySet<number>;
  readonly outputs: ReadonlySet<number>;
  readonly taps: ReadonlySet<number>;
  readonly entries: ReadonlySet<number>;

  constructor(
    readonly selection: Selection,
    readonly related: Related,
    private readonly transposed: boolean,
  ) {
    const set = (positions: readonly Position[]) => new Set(positions.map(([i, j]) => key(i, j)));
    this.inputs = set(related.inputs);
    this.outputs = set(related.outputs);
    this.taps = set(related.taps);
    this.entries = new Set(related.entries.map((entry) => key(entry.row, entry.column)));
  }

  input(i: number, j: number): Mark {
    return this.of("input", this.inputs, i, j);
  }

  output(i: number, j: number): Mark {
    return this.of("output", this.outputs, i, j);
  }

  tap(a: number, b: number): Mark {
    return this.of("tap", this.taps, a, b);
  }

  /** The image that a convolution gives and its transpose reads. */
  small(i: number, j: number): Mark {
    return this.transposed ? this.input(i, j) : this.output(i, j);
  }

  large(i: number, j: number): Mark {
    return this.transposed ? this.output(i, j) : this.input(i, j);
  }

  entry(row: number, column: number): Mark {
    const chosen = this.selection;
    if (chosen?.kind === "entry" && chosen.row === row && chosen.column === column) return "selected";
    return this.entries.has(key(row, column)) ? "related" : "";
  }

  private of(kind: "input" | "output" | "tap", set: ReadonlySet<number>, i: number, j: number): Mark {
    const chosen = this.selection;
    if (chosen?.kind === kind && chosen.at[0] === i && chosen.at[1] === j) return "selected";
    return set.has(key(i, j)) ? "related" : "";
  }
}

export const NOTHING: Related = { inputs: [], outputs: [], taps: [], entries: [], sentence: "" };

/** What a view needs of the page around it. */
export interface Context {
  select(selection: Selection): void;
  selectSmall(i: number, j: number): void;
  selectLarge(i: number, j: number): void;
}

export interface View {
  readonly id: string;
  readonly title: string; // in the row of links
  readonly element: HTMLElement;
  /** False where the view has nothing to say in this mode: it is then hidden. */
  show(result: Result): boolean;
  mark(marks: Marks): void;
}
