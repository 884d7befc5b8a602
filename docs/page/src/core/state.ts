import { AXIS_KEYS, LIMITS, SINGLE_ROW, within } from "./limits.ts";
import { DEFAULT } from "./presets.ts";
import { num } from "./text.ts";
import type { Axis, Decoded, Grid, Mode, Settings } from "./types.ts";

// mode=conv_transpose&dims=2&linked=1&columns=3,3,2,0,0,1&kernel=1,2,3_4,5,6_7,8,9&input=...&ceil=0&probe=0
// An axis is its numbers in the order of AXIS_KEYS. `rows` stands there for two dimensions that are not linked.

const MODES: readonly Mode[] = ["conv", "conv_transpose", "pool"];

/** The settings as the part of an address behind "#". */
export function encode(settings: Settings): string {
  const { mode, dims, linked, rows, columns, kernel, input, ceilMode, probe } = settings;
  const axis = (a: Axis): string => AXIS_KEYS.map((key) => a[key]).join(",");
  const grid = (values: Grid): string => values.map((row) => row.join(",")).join("_");
  const fields = {
    mode,
    dims,
    linked: Number(linked),
    ...(hasRows(dims, linked) ? { rows: axis(rows) } : {}),
    columns: axis(columns),
    kernel: grid(kernel),
    input: grid(input),
    ceil: Number(ceilMode),
    probe,
  };
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${value}`)
    .join("&");
}

/** The settings of an address. One that was not written by `encode` gives the default and a notice that says what was wrong. */
export function decode(hash: string): Decoded {
  const text = hash.replace(/^#/, "");
  if (text === "") return { settings: DEFAULT };
  try {
    return { settings: settingsOf(text) };
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    return { settings: DEFAULT, notice: `The address holds settings that cannot be read (${error.message}), so the page starts afresh.` };
  }
}

class Malformed extends Error {}

function hasRows(dims: number, linked: boolean): boolean {
  return dims === 2 && !linked;
}

function settingsOf(text: string): Settings {
  const fields = new Map<string, string>();
  for (const part of text.split("&")) {
    const [, name, value] = /^([a-z]+)=(.*)$/.exec(part) ?? [];
    if (name === undefined || value === undefined) throw new Malformed("a part is not of the form name=value");
    if (fields.has(name)) throw new Malformed(`${name} stands there twice`);
    fields.set(name, value);
  }
  const take = (name: string): string => {
    const value = fields.get(name);
    if (value === undefined) throw new Malformed(`${name} is missing`);
    fields.delete(name);
    return value;
  };
  const flag = (name: string): boolean => integer(take(name), name, [0, 1]) === 1;
  const mode = MODES.find((known) => known === fields.get("mode"));
  if (mode === undefined) throw new Malformed(fields.has("mode") ? "mode is unknown" : "mode is missing");
  fields.delete("mode");
  const dims = integer(take("dims"), "dims", [1, 2]) as 1 | 2;
  const linked = flag("linked");
  const ownRows = hasRows(dims, linked) ? axisOf(take("rows"), "rows") : null;
  const columns = axisOf(take("columns"), "columns");
  const rows = ownRows ?? (dims === 1 ? { ...SINGLE_ROW } : { ...columns });
  const settings: Settings = {
    mode,
    dims,
    rows,
    columns,
    linked,
    kernel: gridOf(take("kernel"), "kernel", rows.kernel, columns.kernel),
    input: gridOf(take("input"), "input", rows.size, columns.size),
    ceilMode: flag("ceil"),
    probe: integer(take("probe"), "probe", LIMITS.probe),
  };
  const [unknown] = fields.keys();
  if (unknown !== undefined) throw new Malformed(`${unknown} is unknown or has no place here`);
  return settings;
}

function integer(text: string, name: string, limits: readonly [number, number]): number {
  const value = /^(0|-?[1-9]\d{0,2})$/.test(text) ? Number(text) : NaN;
  if (!within(value, limits)) throw new Malformed(`${name} must hold whole numbers from ${limits.map(num).join(" to ")}`);
  return value;
}

function axisOf(text: string, name: string): Axis {
  const parts = text.split(",");
  if (parts.length !== AXIS_KEYS.length) throw new Malformed(`${name} must hold ${AXIS_KEYS.length} numbers`);
  return Object.fromEntries(AXIS_KEYS.map((key, i) => [key, integer(parts[i]!, `${name}: ${key}`, LIMITS[key])])) as unknown as Axis;
}

function gridOf(text: string, name: string, rows: number, columns: number): Grid {
  const values = text.split("_").map((row) => row.split(","));
  if (values.length !== rows || values.some((row) => row.length !== columns))
    throw new Malformed(`${name} must hold ${rows} x ${columns} numbers`);
  return values.map((row) => row.map((value) => integer(value, name, LIMITS.value)));
}
