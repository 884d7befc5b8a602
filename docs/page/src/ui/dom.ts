/** Elements in one line, and numbers and places as a reader writes them. */

import type { Grid, Position } from "../core/types.ts";

export { counted as count, factor, num as number } from "../core/text.ts";

type Child = Node | string | null;
type Attributes = Record<string, string | number | boolean | EventListener | undefined>;

/** An element: attributes by name, listeners under "onclick" and the like, true for a bare attribute, false for none. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  assign(element, attributes);
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

/** The same for SVG. */
export function svg(tag: string, attributes: Attributes = {}, ...children: Child[]): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  assign(element, attributes);
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

function assign(element: Element, attributes: Attributes): void {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
}

export function replace(element: Element, ...children: Child[]): void {
  element.replaceChildren(...children.filter((child) => child !== null));
}

/** An entry that is known to be there. */
export function at<T>(grid: readonly (readonly T[])[], [i, j]: Position): T {
  const value = grid[i]?.[j];
  if (value === undefined) throw new RangeError(`no entry at row ${i}, column ${j}`);
  return value;
}

export function shape(grid: readonly (readonly unknown[])[]): { rows: number; columns: number } {
  return { rows: grid.length, columns: grid[0]?.length ?? 0 };
}

export function same(a: Position, b: Position): boolean {
  return a[0] === b[0] && a[1] === b[1];
}

/** "[3]" in one dimension, "[1, 3]" in two. */
export function place(dims: 1 | 2, [i, j]: Position): string {
  return dims === 1 ? `[${j}]` : `[${i}, ${j}]`;
}

export function largest(grid: Grid): number {
  return Math.max(0, ...grid.map((row) => Math.max(0, ...row)));
}
