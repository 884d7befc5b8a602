import assert from "node:assert/strict";
import { test } from "node:test";

import { change, DEFAULT, PRESETS, run, setInput, type ConvResult, type Settings, type Step } from "../../src/core/index.ts";

function conv(settings: Settings): ConvResult {
  const result = run(settings);
  assert.ok(result.mode !== "pool");
  return result;
}

function preset(id: string): ConvResult {
  return conv(PRESETS.find((one) => one.id === id)!.settings);
}

const steps = ({ stepper }: ConvResult): Step[] => Array.from({ length: stepper.count }, (_, index) => stepper.at(index));

test("a convolution: columns, then products, then the columns added back", () => {
  const result = conv(change(DEFAULT, { mode: "conv", columns: { size: 5 } })); // 1 2 3 4 5 under 1 10 100, stride 2
  const film = steps(result);
  assert.deepEqual(
    film.map(({ stage, column }) => `${stage} ${column}`),
    ["im2col 0", "im2col 1", "gemm 0", "gemm 1", "col2im 0", "col2im 1"],
  );
  assert.deepEqual(film[0]!.columns, [
    [1, null],
    [2, null],
    [3, null],
  ]);
  assert.deepEqual(film[1]!.columns, [
    [1, 3],
    [2, 4],
    [3, 5],
  ]);
  assert.deepEqual(film[1]!.touched, [
    [0, 2],
    [0, 3],
    [0, 4],
  ]);
  assert.deepEqual(film[1]!.product, [[null, null]]);
  assert.deepEqual(film[2]!.product, [[321, null]]);
  assert.deepEqual(film[3]!.product, [[321, 543]]);
  assert.deepEqual(film[3]!.image, [[1, 2, 3, 4, 5]]);
  assert.deepEqual(film[4]!.image, [[1, 2, 3, 0, 0]]);
  assert.deepEqual(film[5]!.image, [[1, 2, 6, 4, 5]]); // overlap 1 1 2 1 1 times the pixels
  assert.equal(film[2]!.sentence, "Product: the kernel's row times column 0: 1·1 + 10·2 + 100·3 = 321.");
});

test("a transposed convolution: columns of products, added up, then cropped", () => {
  const result = preset("same"); // 1 2 3 under 1 10 100, stride 2, padding 1, output_padding 1
  const film = steps(result);
  assert.deepEqual(
    film.map(({ stage, column }) => `${stage} ${column}`),
    ["gemm 0", "gemm 1", "gemm 2", "col2im 0", "col2im 1", "col2im 2", "crop -1"],
  );
  assert.deepEqual(film[1]!.columns, [
    [1, 2, null],
    [10, 20, null],
    [100, 200, null],
  ]);
  assert.deepEqual(film[2]!.image, [[0, 0, 0, 0, 0, 0, 0]]);
  assert.deepEqual(film[3]!.image, [[1, 10, 100, 0, 0, 0, 0]]);
  assert.deepEqual(film[4]!.image, [[1, 10, 102, 20, 200, 0, 0]]);
  assert.deepEqual(film[4]!.touched, [
    [0, 2],
    [0, 3],
    [0, 4],
  ]);
  assert.deepEqual(film[6]!.image, [[1, 10, 102, 20, 203, 30, 300]]);
  assert.deepEqual(result.stepper.frame, { rows: 1, columns: 7, top: 0, left: 1 });
  assert.equal(film[6]!.sentence, "Crop: padding 1 cuts 1 in front, and output_padding 1 leaves 0 to cut behind.");
});

test("what output_padding appends is part of the frame", () => {
  const { stepper } = preset("output-padding");
  assert.deepEqual(stepper.at(stepper.count - 1).image, [[1, 1, 2, 1, 2, 1, 1, 0]]);
  assert.match(stepper.at(stepper.count - 1).sentence, /adds 1 zero behind that no tap reaches/);
});

test("each step adds to the one before and takes nothing back", () => {
  for (const { id, settings } of PRESETS) {
    if (settings.mode === "pool") continue;
    const film = steps(conv(settings));
    for (const [index, step] of film.entries()) {
      assert.equal(step.index, index);
      const before = film[index - 1];
      if (!before) continue;
      const kept = (now: (number | null)[], then: (number | null)[]): boolean =>
        then.every((value, k) => value === null || value === now[k]);
      assert.ok(kept(step.columns.flat(), before.columns.flat()), id);
      assert.ok(kept(step.product.flat(), before.product.flat()), id);
      const changed = step.image.flatMap((row, u) => row.flatMap((value, v) => (value === before.image[u]![v] ? [] : [`${u},${v}`])));
      if (step.stage === "col2im" && before.stage === "col2im") {
        assert.ok(
          changed.every((place) => step.touched.map(String).includes(place)),
          `${id}: only the window changes`,
        );
      }
    }
  }
});

test("a step that does not exist is refused", () => {
  const { stepper } = preset("digits");
  for (const index of [-1, 0.5, stepper.count]) assert.throws(() => stepper.at(index), RangeError);
});

test("negative numbers are written with a minus sign and brackets", () => {
  const settings = change(setInput(DEFAULT, [0, 1], -2), { mode: "conv" });
  assert.equal(conv(settings).stepper.at(1).sentence, "Product: the kernel's row times column 0: 1·1 + 10·(−2) + 100·3 = 281.");
});
