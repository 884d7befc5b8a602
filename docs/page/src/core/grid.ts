import type { Grid, Position } from "./types.ts";

/** A grid of rows x columns, filled by a function of the place. */
export function grid<T>(rows: number, columns: number, value: (row: number, column: number) => T): T[][] {
  return Array.from({ length: rows }, (_, i) => Array.from({ length: columns }, (_, j) => value(i, j)));
}

export function zeros(rows: number, columns: number): Grid {
  return grid(rows, columns, () => 0);
}

/** [rows, columns] of a grid. */
export function shape(values: readonly (readonly unknown[])[]): readonly [number, number] {
  return [values.length, values[0]?.length ?? 0];
}

/** The value at a place, 0 outside. */
export function at(values: Grid, row: number, column: number): number {
  return values[row]?.[column] ?? 0;
}

export function inside(values: readonly (readonly unknown[])[], row: number, column: number): boolean {
  const [rows, columns] = shape(values);
  return 0 <= row && row < rows && 0 <= column && column < columns;
}

/** Adds to the value at a place that must exist. */
export function add(values: Grid, row: number, column: number, amount: number): void {
  values[row]![column]! += amount;
}

/** rows x columns from (top, left) on, with zeros where nothing is. */
export function cut(values: Grid, top: number, left: number, rows: number, columns: number): Grid {
  return grid(rows, columns, (i, j) => at(values, top + i, left + j));
}

export function transposed(values: Grid): Grid {
  const [rows, columns] = shape(values);
  return grid(columns, rows, (i, j) => at(values, j, i));
}

/** Both axes turned round. */
export function flipped(values: Grid): Grid {
  return values.map((row) => row.toReversed()).toReversed();
}

/** The product of a matrix and a grid read in row-major order, as a grid of rows x columns. */
export function multiply(matrix: Grid, values: Grid, rows: number, columns: number): Grid {
  const vector = values.flat();
  const product = matrix.map((row) => row.reduce((sum, entry, k) => sum + entry * vector[k]!, 0));
  return grid(rows, columns, (i, j) => product[i * columns + j]!);
}

/** The inner product: products of equal places, added up. */
export function inner(a: Grid, b: Grid): number {
  return a.reduce((sum, row, i) => row.reduce((partial, value, j) => partial + value * b[i]![j]!, sum), 0);
}

/** All places of a grid in row-major order. */
export function positions(rows: number, columns: number): Position[] {
  return grid<Position>(rows, columns, (i, j) => [i, j]).flat();
}

export function count(n: number): number[] {
  return Array.from({ length: n }, (_, i) => i);
}
