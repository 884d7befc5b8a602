import assert from "node:assert/strict";
import { test } from "node:test";

import { change, DEFAULT, PRESETS, related, run, type ConvResult, type Position, type Selection } from "../../src/core/index.ts";

const DIGITS = run(DEFAULT); // 1 2 3 under 1 10 100, stride 2

test("nothing selected relates to nothing", () => {
  const nothing = related(DIGITS, null);
  assert.deepEqual([nothing.inputs, nothing.outputs, nothing.taps, nothing.entries], [[], [], [], []]);
});

test("an input, an output, a tap and an entry, by hand", () => {
  const at = (selection: Selection): ReturnType<typeof related> => related(DIGITS, selection);
  const input = at({ kind: "input", at: [0, 1] });
  assert.deepEqual(
    input.outputs.map(([, j]) => j),
    [2, 3, 4],
  );
  assert.deepEqual(
    input.taps.map(([, b]) => b),
    [0, 1, 2],
  );
  assert.deepEqual(
    input.entries,
    [2, 3, 4].map((column) => ({ row: 1, column })),
  );
  assert.equal(input.sentence, "Input 1 (2) reaches 3 outputs.");
  const output = at({ kind: "output", at: [0, 2] });
  assert.deepEqual(
    output.inputs.map(([, j]) => j),
    [0, 1],
  );
  assert.deepEqual(
    output.taps.map(([, b]) => b),
    [0, 2],
  );
  assert.equal(output.sentence, "Output 2 (102) is a sum of 2 products.");
  const tap = at({ kind: "tap", at: [0, 1] });
  assert.deepEqual(
    tap.outputs.map(([, j]) => j),
    [1, 3, 5],
  );
  assert.equal(tap.sentence, "Tap 1 (10) stands at 3 entries of C and joins 3 inputs to 3 outputs.");
  const entry = at({ kind: "entry", row: 1, column: 4 });
  assert.deepEqual([entry.inputs, entry.outputs, entry.taps], [[[0, 1]], [[0, 4]], [[0, 2]]]);
  assert.equal(entry.sentence, "Input 1 (2) and output 4 (203): tap 2 (100) joins them.");
  const empty = at({ kind: "entry", row: 0, column: 6 });
  assert.deepEqual([empty.inputs, empty.outputs, empty.taps], [[[0, 0]], [[0, 6]], []]);
  assert.equal(empty.sentence, "Input 0 (1) and output 6 (300): no tap joins them, the entry is 0.");
});

test("in a convolution, small and large change places", () => {
  const result = run(change(DEFAULT, { mode: "conv", columns: { size: 5 } }));
  assert.deepEqual(related(result, { kind: "input", at: [0, 2] }).outputs, [
    [0, 0],
    [0, 1],
  ]);
  assert.deepEqual(related(result, { kind: "entry", row: 1, column: 2 }).inputs, [[0, 2]]);
  assert.deepEqual(related(result, { kind: "entry", row: 1, column: 2 }).outputs, [[0, 1]]);
});

test("relations are the terms of the sums, both ways, in every preset", () => {
  for (const { id, settings } of PRESETS) {
    const result = run(settings);
    if (result.mode === "pool") continue;
    const pairs = (find: (at: Position) => Position[], grid: number[][]): string[] =>
      grid.flatMap((row, i) => row.flatMap((_, j) => find([i, j]).map((other) => `${other} ${[i, j]}`))).toSorted();
    const terms = pairs((at) => inputsOf(result, at), result.output);
    assert.deepEqual(
      pairs((at) => related(result, { kind: "output", at }).inputs, result.output),
      terms,
      id,
    );
    const turned = pairs((at) => related(result, { kind: "input", at }).outputs, result.input).map((pair) =>
      pair.split(" ").reverse().join(" "),
    );
    assert.deepEqual(turned.toSorted(), terms, id);
    const entries = result.matrix.taps.flatMap((row, i) => row.flatMap((tap, j) => (tap < 0 ? [] : [`${tap} ${i} ${j}`])));
    const byTap = result.kernel.flatMap((row, a) =>
      row.flatMap((_, b) =>
        related(result, { kind: "tap", at: [a, b] }).entries.map((entry) => `${a * row.length + b} ${entry.row} ${entry.column}`),
      ),
    );
    assert.deepEqual(byTap.toSorted(), entries.toSorted(), id);
  }
});

function inputsOf(result: ConvResult, at: Position): Position[] {
  return result.terms(at).flatMap(({ input, inside }) => (inside ? [input] : []));
}

test("pooling: windows and winners", () => {
  const result = run(PRESETS.find(({ id }) => id === "pool-overlap")!.settings); // 1 2 5 3 0, windows of 3, stride 2
  const output = related(result, { kind: "output", at: [0, 1] });
  assert.deepEqual(
    output.inputs.map(([, j]) => j),
    [2, 3, 4],
  );
  assert.equal(output.sentence, "Output 1 is the maximum of 3 pixels: 5 at input 2, index 2.");
  const input = related(result, { kind: "input", at: [0, 2] });
  assert.deepEqual(
    input.outputs.map(([, j]) => j),
    [0, 1],
  );
  assert.equal(input.sentence, "Input 2 (5) is seen by 2 windows and wins 2.");
  assert.deepEqual(related(result, { kind: "tap", at: [0, 0] }).outputs, []);
});
