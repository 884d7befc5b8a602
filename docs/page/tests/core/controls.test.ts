import assert from "node:assert/strict";
import { test } from "node:test";

import { change, check, DEFAULT, LIMITS, setInput, setKernel, type Axis, type Edit, type Settings } from "../../src/core/index.ts";
import { anyState } from "./states.ts";

function fits({ rows, columns, kernel, input }: Settings): void {
  const shape = (values: number[][]): number[] => [values.length, ...new Set(values.map((row) => row.length))];
  assert.deepEqual(shape(kernel), [rows.kernel, columns.kernel]);
  assert.deepEqual(shape(input), [rows.size, columns.size]);
}

test("grids follow their controls, and what was there stays", () => {
  const larger = change(DEFAULT, { columns: { kernel: 4, size: 5 } });
  fits(larger);
  assert.deepEqual(larger.kernel, [[1, 10, 100, 1]]);
  assert.deepEqual(larger.input[0]!.slice(0, 3), [1, 2, 3]);
  assert.deepEqual(change(larger, { columns: { kernel: 2 } }).kernel, [[1, 10]]);
});

test("linked axes move together, whichever is changed; others do not", () => {
  const square = change(DEFAULT, { dims: 2 });
  fits(square);
  assert.deepEqual(square.rows, square.columns);
  for (const edit of [{ rows: { stride: 3 } }, { columns: { stride: 3 } }]) {
    const moved = change(square, edit);
    assert.deepEqual([moved.rows.stride, moved.columns.stride], [3, 3]);
  }
  const free = change(square, { linked: false });
  assert.deepEqual(change(free, { rows: { stride: 3 } }).columns, free.columns);
  assert.deepEqual(change(free, { columns: { stride: 3 } }).rows, free.rows);
  const joined = change(change(free, { rows: { size: 6 } }), { linked: true });
  assert.deepEqual(joined.rows, joined.columns);
  fits(joined);
});

test("one dimension has one row, and two begin with equal axes", () => {
  const flat = change(change(DEFAULT, { dims: 2, linked: false, rows: { size: 4 } }), { dims: 1 });
  assert.deepEqual(flat.rows, { size: 1, kernel: 1, stride: 1, padding: 0, outputPadding: 0, dilation: 1 });
  fits(flat);
  assert.deepEqual(change(flat, { dims: 2 }).rows, flat.columns);
});

test("changes leave the old settings alone", () => {
  const before = structuredClone(DEFAULT);
  const edits: Edit[] = [{ dims: 2 }, { mode: "pool" }, { columns: { size: 8 } }, { linked: false }];
  for (const edit of edits) change(DEFAULT, edit);
  assert.deepEqual(setKernel(DEFAULT, [0, 1], 7).kernel, [[1, 7, 100]]);
  assert.deepEqual(setInput(DEFAULT, [0, 2], -7).input, [[1, 2, -7]]);
  assert.deepEqual(DEFAULT, before);
});

test("whatever the controls say, the grids fit and only the window may not", () => {
  for (let seed = 0; seed < 2000; seed++) {
    const settings = anyState(seed);
    fits(settings);
    const verdict = check(settings);
    if (verdict.ok) continue;
    assert.notEqual(verdict.problem, "range");
    assert.match(verdict.sentence, /^[A-Z][^:]+: .*\.$|^[A-Z].*\. .*\.$/, "a sentence that says why, and the way out");
    assert.match(verdict.sentence, /\d/);
    assert.doesNotMatch(verdict.sentence, /NaN|undefined|1 (pixels|rows|columns)\b/);
  }
});

test("numbers outside the limits are named", () => {
  for (const key of ["size", "kernel", "stride", "padding", "outputPadding", "dilation"] as const satisfies (keyof Axis)[]) {
    for (const value of [LIMITS[key][0] - 1, LIMITS[key][1] + 1, 1.5, NaN]) {
      const verdict = check({ ...DEFAULT, columns: { ...DEFAULT.columns, [key]: value } });
      assert.ok(!verdict.ok && verdict.problem === "range" && verdict.sentence.includes(String(value)), `${key} ${value}`);
    }
  }
  assert.ok(!check(setKernel(DEFAULT, [0, 0], 1000)).ok);
  assert.ok(!check(setInput(DEFAULT, [0, 0], 0.5)).ok);
  assert.ok(!check({ ...DEFAULT, kernel: [[1, 2]] }).ok);
});
