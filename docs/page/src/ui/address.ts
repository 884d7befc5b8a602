/** The page's state in its address: the settings, as the core writes them, then what is selected and the step. */

import { decode, encode } from "../core/index.ts";
import type { Selection, Settings } from "../core/types.ts";

export interface State {
  settings: Settings;
  selection: Selection;
  step: number;
  notice?: string;
}

export function write({ settings, selection, step }: State): string {
  const parts = [encode(settings)];
  if (selection)
    parts.push(`at=${selection.kind},${selection.kind === "entry" ? `${selection.row},${selection.column}` : selection.at.join(",")}`);
  if (step > 0) parts.push(`step=${step}`);
  return parts.join("&");
}

/** Like the core's `decode`: what cannot be read is ignored as a whole, with a notice. */
export function read(hash: string): State {
  const kept: string[] = [];
  let selection: Selection = null;
  let step = 0;
  const seen = new Set<string>();
  for (const part of hash.replace(/^#/, "").split("&")) {
    const name = /^(at|step)=/.exec(part)?.[1];
    if (!name) {
      kept.push(part);
      continue;
    }
    const found = name === "at" ? readSelection(part.slice(3)) : /^step=[1-9]\d{0,3}$/.test(part) ? Number(part.slice(5)) : undefined;
    if (found === undefined || seen.has(name))
      kept.push(part); // the core says that it has no place there
    else if (typeof found === "number") step = found;
    else selection = found;
    seen.add(name);
  }
  const decoded = decode(kept.join("&"));
  return decoded.notice === undefined
    ? { settings: decoded.settings, selection, step }
    : { settings: decoded.settings, selection: null, step: 0, notice: decoded.notice };
}

function readSelection(text: string): Selection | undefined {
  const [, kind, first, second] = /^(input|output|tap|entry),(0|[1-9]\d{0,3}),(0|[1-9]\d{0,3})$/.exec(text) ?? [];
  if (kind === undefined) return undefined;
  const [i, j] = [Number(first), Number(second)];
  return kind === "entry" ? { kind, row: i, column: j } : { kind: kind as "input" | "output" | "tap", at: [i, j] };
}
