import { positions, shape } from "./grid.ts";
import { counted, num, place } from "./text.ts";
import type { ConvResult, PoolResult, Position, Related, Result, Selection } from "./types.ts";

/** What belongs to a selection in every view. */
export function related(result: Result, selection: Selection): Related {
  if (!selection) return { inputs: [], outputs: [], taps: [], entries: [], sentence: "Nothing is selected." };
  return result.mode === "pool" ? relatedPool(result, selection) : relatedConv(result, selection);
}

interface Link {
  row: number; // small pixel
  column: number; // large pixel
  tap: number;
}

function relatedConv(result: ConvResult, selection: NonNullable<Selection>): Related {
  const { settings, mode, kernel, input, output } = result;
  const width = { input: shape(input)[1], output: shape(output)[1], tap: shape(kernel)[1] };
  const forward = mode === "conv"; // then the input is large and the output small
  const inputOf = ({ row, column }: Link): number => (forward ? column : row);
  const outputOf = ({ row, column }: Link): number => (forward ? row : column);
  const belongs = (link: Link): boolean => {
    if (selection.kind === "entry") return link.row === selection.row && link.column === selection.column;
    const flat = selection.at[0] * width[selection.kind] + selection.at[1];
    return flat === { input: inputOf, output: outputOf, tap: ({ tap }: Link) => tap }[selection.kind](link);
  };
  const links = linksOf(result).filter(belongs);
  const places = (numbers: number[], columns: number): Position[] =>
    [...new Set(numbers)].sort((a, b) => a - b).map((flat) => [Math.floor(flat / columns), flat % columns]);
  const found: Related = {
    inputs: places(links.map(inputOf), width.input),
    outputs: places(links.map(outputOf), width.output),
    taps: places(
      links.map(({ tap }) => tap),
      width.tap,
    ),
    entries: links.map(({ row, column }) => ({ row, column })),
    sentence: "",
  };
  if (selection.kind === "input") found.inputs = [selection.at];
  if (selection.kind === "output") found.outputs = [selection.at];
  if (selection.kind === "tap") found.taps = [selection.at];
  if (selection.kind === "entry") {
    const link: Link = { ...selection, tap: -1 };
    found.inputs = places([inputOf(link)], width.input);
    found.outputs = places([outputOf(link)], width.output);
    found.entries = [{ row: selection.row, column: selection.column }];
  }
  const value = (grid: number[][], [i, j]: Position): string => num(grid[i]?.[j] ?? 0);
  const name = (kind: string, grid: number[][], at: Position): string => `${kind} ${place(at, settings.dims)} (${value(grid, at)})`;
  const sum = ["is 0: no input reaches it", "is a single product"][links.length] ?? `is a sum of ${links.length} products`;
  const sentences = {
    input: () => `${name("Input", input, found.inputs[0]!)} reaches ${counted(found.outputs.length, "output")}.`,
    output: () => `${name("Output", output, found.outputs[0]!)} ${sum}.`,
    tap: () =>
      `${name("Tap", kernel, found.taps[0]!)} stands at ${counted(links.length, "entry", "entries")} of C and joins ` +
      `${counted(found.inputs.length, "input")} to ${counted(found.outputs.length, "output")}.`,
    entry: () =>
      `${name("Input", input, found.inputs[0]!)} and ${name("output", output, found.outputs[0]!)}: ` +
      (found.taps[0] ? `${name("tap", kernel, found.taps[0])} joins them.` : "no tap joins them, the entry is 0."),
  };
  found.sentence = sentences[selection.kind]();
  return found;
}

function linksOf({ matrix }: ConvResult): Link[] {
  return matrix.taps.flatMap((row, i) => row.flatMap((tap, j) => (tap < 0 ? [] : [{ row: i, column: j, tap }])));
}

function relatedPool(result: PoolResult, selection: NonNullable<Selection>): Related {
  const { windows, input, output, settings } = result;
  const none: Related = { inputs: [], outputs: [], taps: [], entries: [], sentence: "Pooling has no taps and no weights." };
  if (selection.kind !== "input" && selection.kind !== "output") return none;
  const [i, j] = selection.at;
  const name = (at: Position): string => place(at, settings.dims);
  if (selection.kind === "output") {
    const window = windows[i]?.[j];
    if (!window) return none;
    const ties = window.ties.length ? `, the first of ${window.ties.length + 1} equal ones` : "";
    const winner = `${num(window.value)} at input ${name(window.winner)}, index ${window.index}`;
    const sentence = `Output ${name(selection.at)} is the maximum of ${counted(window.cells.length, "pixel")}: ${winner}${ties}.`;
    return { ...none, inputs: window.cells, outputs: [selection.at], sentence };
  }
  const same = ([u, v]: Position): boolean => u === i && v === j;
  const outputs = positions(...shape(output)).filter(([p, q]) => windows[p]![q]!.cells.some(same));
  const won = outputs.filter(([p, q]) => same(windows[p]![q]!.winner)).length;
  const sentence = `Input ${name(selection.at)} (${num(input[i]?.[j] ?? 0)}) is seen by ${counted(outputs.length, "window")} and wins ${won}.`;
  return { ...none, inputs: [selection.at], outputs, sentence };
}
