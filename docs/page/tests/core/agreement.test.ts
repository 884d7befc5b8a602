import assert from "node:assert/strict";
import { test } from "node:test";

import { check, DEFAULT, PRESETS, run, type ConvResult, type Grid, type Settings } from "../../src/core/index.ts";
import { anyState } from "./states.ts";

const STATES: [string, Settings][] = [
  ...PRESETS.map(({ id, settings }): [string, Settings] => [id, settings]),
  ...Array.from({ length: 1500 }, (_, seed): [string, Settings] => [`state ${seed}`, anyState(seed)]),
];

function sums({ output, terms }: ConvResult): Grid {
  return output.map((row, i) => row.map((_, j) => terms([i, j]).reduce((sum, { product }) => sum + product, 0)));
}

test("every way to the same numbers gives the same numbers, in any state of the controls", () => {
  const seen = { conv: 0, conv_transpose: 0, pool: 0, refused: 0 };
  for (const [name, settings] of STATES) {
    if (!check(settings).ok) {
      assert.throws(() => run(settings), name);
      seen.refused++;
      continue;
    }
    const result = run(settings);
    seen[result.mode]++;
    assert.equal(result.inner.left, result.inner.right, `${name}: <Cx, y> and <x, C^T y>`);
    if (result.mode === "pool") continue;
    const transpose = result.inner.cty;
    assert.deepEqual(result.output, result.mode === "conv" ? result.inner.cx : transpose, name);
    assert.deepEqual(sums(result), result.output, `${name}: terms`);
    assert.deepEqual(result.matrixOutput, result.output, `${name}: matrix`);
    assert.deepEqual(result.stepper.output, result.output, `${name}: im2col, product and col2im`);
    assert.deepEqual(result.zeroInsertion.output, transpose, `${name}: zero insertion`);
    assert.deepEqual(result.phases.output, transpose, `${name}: phases`);
    const fanIn = result.matrix.taps[0]!.map((_, column) => result.matrix.taps.filter((row) => row[column]! >= 0).length);
    assert.deepEqual(result.overlap.counts.flat(), fanIn, `${name}: overlap is the number of taps in each column of C`);
  }
  for (const [kind, number] of Object.entries(seen)) assert.ok(number > 100, `only ${number} states: ${kind}`);
});

test("each output belongs to one phase", () => {
  for (const { settings } of PRESETS) {
    const result = run(settings);
    if (result.mode === "pool") continue;
    const places = result.phases.parts.flatMap(({ outputs }) => outputs.map(String));
    assert.equal(new Set(places).size, places.length);
    assert.equal(places.length, result.large.rows * result.large.columns);
  }
});

test("the default is the first preset, and its numbers are those of the text", () => {
  assert.deepEqual(DEFAULT, PRESETS[0]!.settings);
  assert.deepEqual(run(DEFAULT).output, [[1, 10, 102, 20, 203, 30, 300]]);
});
