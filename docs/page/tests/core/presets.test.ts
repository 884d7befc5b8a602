import assert from "node:assert/strict";
import { test } from "node:test";

import { change, check, PRESETS, run, type ConvResult, type PoolResult, type Preset } from "../../src/core/index.ts";

function preset(id: string): Preset {
  const found = PRESETS.find((one) => one.id === id);
  assert.ok(found, id);
  return found;
}

function conv(id: string, edit: Parameters<typeof change>[1] = {}): ConvResult {
  const result = run(change(preset(id).settings, edit));
  assert.ok(result.mode !== "pool");
  return result;
}

function pool(id: string): PoolResult {
  const result = run(preset(id).settings);
  assert.ok(result.mode === "pool");
  return result;
}

test("presets have names of their own, can be carried out and say what to look at", () => {
  assert.equal(new Set(PRESETS.map(({ id }) => id)).size, PRESETS.length);
  assert.equal(new Set(PRESETS.map(({ name }) => name)).size, PRESETS.length);
  for (const { id, settings, note } of PRESETS) {
    assert.deepEqual(check(settings), { ok: true }, id);
    assert.match(note, /^[A-Z].{60,}\.$/, id);
    assert.deepEqual(change(settings, {}), settings, `${id} is a state that the controls can reach`);
  }
});

test("digits: 102 is 2 through the first tap and 1 through the last", () => {
  const terms = conv("digits").terms([0, 2]);
  assert.deepEqual(
    terms.map(({ tap, value, product }) => [tap[1], value, product]),
    [
      [0, 2, 2],
      [2, 1, 100],
    ],
  );
});

test("checkerboard: 1, 2 and 4 come out of ones", () => {
  assert.deepEqual([...new Set(conv("checkerboard").output.flat())].toSorted(), [1, 2, 4]);
});

test("clean: constant to the edge; with padding 1 the outermost pixels have fewer", () => {
  assert.ok(conv("clean").overlap.everywhere);
  const counts = conv("clean", { columns: { padding: 1 } }).overlap.counts;
  assert.deepEqual([counts[0]![0], counts[0]![1], counts[1]![1]], [1, 2, 4]);
});

test("sums: uneven overlap, equal phase sums of 2; uneven: the reverse, with 4 and 3", () => {
  const even = conv("sums");
  assert.deepEqual([even.overlap.interior, even.phases.parts.map(({ sum }) => sum)], [false, [2, 2]]);
  const uneven = conv("uneven");
  assert.deepEqual([uneven.overlap.interior, uneven.phases.parts.map(({ sum }) => sum)], [true, [4, 3]]);
  assert.deepEqual(uneven.output[0]!.slice(2, 6), [4, 3, 4, 3]);
});

test("bilinear: linear interpolation times 4, but for the two border pixels", () => {
  const { output, input } = conv("bilinear");
  const x = input[0]!;
  const expected = Array.from({ length: 2 * x.length }, (_, j) => {
    const at = (j + 0.5) / 2 - 0.5; // where this pixel's centre lies among the input's
    const [before, part] = [Math.floor(at), at - Math.floor(at)];
    return 4 * ((1 - part) * (x[before] ?? x[0]!) + part * (x[before + 1] ?? x.at(-1)!));
  });
  assert.deepEqual(output[0]!.slice(1, -1), expected.slice(1, -1));
  assert.ok(output[0]![0]! < expected[0]!);
});

test("dead: every second pixel is zero, whatever the weights are", () => {
  assert.deepEqual(conv("dead").output, [[1, 0, 3, 0, 6, 0, 5, 0, 3]]);
  assert.deepEqual(conv("dead").phases.parts[1]!.taps, []);
});

test("output-padding: the appended column meets no tap", () => {
  const { output, matrix } = conv("output-padding");
  assert.deepEqual(output, [[1, 1, 2, 1, 2, 1, 1, 0]]);
  assert.ok(matrix.taps.every((row) => row.at(-1) === -1));
});

test("same: twice the size, one pixel later than TensorFlow's 1, 10, 102", () => {
  const { output, input } = conv("same");
  assert.equal(output[0]!.length, 2 * input[0]!.length);
  assert.deepEqual(output[0]!.slice(0, 2), [10, 102]);
  assert.deepEqual(conv("digits").output[0]!.slice(0, 6), [1, 10, 102, 20, 203, 30]);
});

test("gaps: pixels that no tap reaches", () => {
  assert.deepEqual(conv("gaps").overlap.counts, [[1, 1, 0, 1, 1, 0, 1, 1]]);
});

test("fcn: 2 are cropped in front and 1 behind", () => {
  const whole = conv("fcn", { columns: { padding: 0, outputPadding: 0 } }).output[0]!;
  assert.deepEqual(conv("fcn").output[0], whole.slice(2, -1));
});

test("unet: blocks side by side, and C C^T is a multiple of the identity", () => {
  const { matrix, overlap, kernel } = conv("unet");
  assert.ok(overlap.everywhere && overlap.counts[0]![0] === 1);
  const norm = kernel.flat().reduce((sum, weight) => sum + weight * weight, 0);
  const square = matrix.entries.map((a) => matrix.entries.map((b) => a.reduce((sum, value, k) => sum + value * b[k]!, 0)));
  assert.deepEqual(
    square,
    square.map((row, i) => row.map((_, j) => (i === j ? norm : 0))),
  );
});

test("pool: 5 becomes 2, unpooling would guess 4, and every winner returns", () => {
  const { output, guessed, repeated, unpooled, overwritten, calls } = pool("pool");
  assert.deepEqual([output.length, output[0]!.length, ...guessed, ...repeated], [2, 2, 4, 4]);
  assert.deepEqual(unpooled, overwritten);
  assert.match(calls.pytorch, /F\.max_unpool2d/);
});

test("pool-overlap: 5 by overwriting, 10 by adding", () => {
  const { overwritten, unpooled, calls } = pool("pool-overlap");
  assert.deepEqual(overwritten, [[0, 0, 5, 0, 0]]);
  assert.deepEqual(unpooled, [[0, 0, 10, 0, 0]]);
  assert.match(calls.minidcnn, /F\.max_unpool2d/);
  assert.match(calls.pytorch, /scatter_add_/); // PyTorch's max_unpool2d overwrites
});
