import { grid } from "./grid.ts";
import { SINGLE_ROW } from "./limits.ts";
import type { Axis, Grid, Mode, Position, Settings } from "./types.ts";

/** A change of controls; what is left out stays. */
export interface Edit {
  mode?: Mode;
  dims?: 1 | 2;
  linked?: boolean;
  ceilMode?: boolean;
  probe?: number;
  rows?: Partial<Axis>;
  columns?: Partial<Axis>;
}

/** New settings. Linked rows follow the columns (and the columns the rows, if those were changed); grids are cut or grown to fit. */
export function change(settings: Settings, edit: Edit): Settings {
  const {
    mode = settings.mode,
    dims = settings.dims,
    linked = settings.linked,
    ceilMode = settings.ceilMode,
    probe = settings.probe,
  } = edit;
  const together = dims === 2 && linked;
  const columns = { ...settings.columns, ...(together ? edit.rows : {}), ...edit.columns };
  const fresh = settings.dims === 1 && dims === 2; // there were no rows: begin with those of the columns
  const rows = dims === 1 ? { ...SINGLE_ROW } : { ...(together || fresh ? columns : settings.rows), ...(together ? {} : edit.rows) };
  return {
    mode,
    dims,
    rows,
    columns,
    linked,
    kernel: fitted(settings.kernel, rows.kernel, columns.kernel, () => 1),
    input: fitted(settings.input, rows.size, columns.size, (i, j) => ((i * columns.size + j) % 9) + 1),
    ceilMode,
    probe,
  };
}

export function setKernel(settings: Settings, at: Position, value: number): Settings {
  return { ...settings, kernel: replaced(settings.kernel, at, value) };
}

export function setInput(settings: Settings, at: Position, value: number): Settings {
  return { ...settings, input: replaced(settings.input, at, value) };
}

function fitted(values: Grid, rows: number, columns: number, fresh: (row: number, column: number) => number): Grid {
  return grid(rows, columns, (i, j) => values[i]?.[j] ?? fresh(i, j));
}

function replaced(values: Grid, [row, column]: Position, value: number): Grid {
  return values.map((line, i) => (i === row ? line.map((old, j) => (j === column ? value : old)) : line));
}
