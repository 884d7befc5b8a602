import type { Axis, Position, Settings } from "./types.ts";

/** Integers with a true minus sign. */
export function num(value: number): string {
  return value < 0 ? `−${-value}` : String(value);
}

/** A number as a factor or summand behind a sign: negative ones in brackets. */
export function factor(value: number): string {
  return value < 0 ? `(${num(value)})` : num(value);
}

/** "1 pixel", "2 pixels". */
export function counted(n: number, one: string, many = `${one}s`): string {
  return `${num(n)} ${n === 1 ? one : many}`;
}

/** "a", "a and b", "a, b and c". */
export function listed(parts: readonly (string | number)[], word = "and"): string {
  const texts = parts.map((part) => (typeof part === "number" ? num(part) : part));
  return texts.length < 2 ? texts.join("") : `${texts.slice(0, -1).join(", ")} ${word} ${texts.at(-1)}`;
}

/** A place in words: its column in one dimension, (row, column) in two; counted from 0. */
export function place(position: Position, dims: 1 | 2): string {
  return dims === 1 ? num(position[1]) : `(${num(position[0])}, ${num(position[1])})`;
}

/** The axes there are, with what their pixels are called. */
export function axesOf(settings: Settings): { name: "rows" | "columns"; axis: Axis; pixel: string; pixels: string }[] {
  const columns = { name: "columns", axis: settings.columns } as const;
  if (settings.dims === 1) return [{ ...columns, pixel: "pixel", pixels: "pixels" }];
  return [
    { name: "rows", axis: settings.rows, pixel: "row", pixels: "rows" },
    { ...columns, pixel: "column", pixels: "columns" },
  ];
}

export function upper(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
