import assert from "node:assert/strict";
import { test } from "node:test";

import { change, check, DEFAULT, PRESETS, related, run, type Result, type Settings } from "../../src/core/index.ts";
import { anyState } from "./states.ts";

function sentences(result: Result): string[] {
  const common = [
    ...result.sizes.flatMap(({ formula, numbers, sentence }) => [formula, numbers, sentence]),
    related(result, { kind: "input", at: [0, 0] }).sentence,
    related(result, { kind: "output", at: [0, 0] }).sentence,
  ];
  if (result.mode === "pool") return [...common, result.sentence];
  const { stepper } = result;
  const steps = [0, stepper.positions - 1, stepper.positions, stepper.count - 1].map((index) => stepper.at(index).sentence);
  const tap = related(result, { kind: "tap", at: [0, 0] }).sentence;
  return [...common, ...steps, tap, result.overlap.sentence, result.phases.sentence];
}

test("sentences are sentences, in any state of the controls", () => {
  for (let seed = 0; seed < 1500; seed++) {
    const settings = anyState(seed);
    if (!check(settings).ok) continue;
    for (const sentence of sentences(run(settings))) {
      assert.doesNotMatch(sentence, /NaN|undefined|null|\[object|-\d|  /, sentence);
      assert.doesNotMatch(sentence, /(^|[^\d.·/])1 (pixels|rows|columns|taps|inputs|outputs|entries|products|windows|zeros)\b/, sentence);
    }
  }
});

const columns = (settings: Settings, edit: Parameters<typeof change>[1]["columns"] = {}): Result =>
  run(change(settings, { columns: edit }));
const size = (result: Result): string => `${result.sizes[0]!.numbers} | ${result.sizes[0]!.sentence}`;

test("size formulas, by hand", () => {
  assert.equal(
    size(run(DEFAULT)),
    "(3 − 1)·2 − 2·0 + 1·(3 − 1) + 1 + 0 = 7 | 7 and 8 pixels all become 3 in the convolution. output_padding 0 chooses 7.",
  );
  assert.match(
    size(columns(DEFAULT, { stride: 1, dilation: 3, outputPadding: 2 })),
    /= 11 \| A convolution takes 11 pixels to 5, not back to 3: output_padding 2 is not below the stride 1\./,
  );
  assert.equal(
    size(run(change(DEFAULT, { mode: "conv", columns: { size: 8, padding: 1 } }))),
    "⌊(8 + 2·1 − 1·(3 − 1) − 1) / 2⌋ + 1 = 4 | 7 and 8 pixels all become 4 in the convolution. " +
      "The transposed convolution returns to 8 with output_padding 1. 1 pixel at the end does not fill another step.",
  );
});

test("a pooling window that would start behind the image is dropped", () => {
  const six = change(PRESETS.find(({ id }) => id === "pool-overlap")!.settings, {
    columns: { size: 6, kernel: 2, stride: 4 },
    ceilMode: true,
  });
  assert.match(size(run(six)), /^⌈\(6 \+ 2·0 − 1·\(2 − 1\) − 1\) \/ 4⌉ \+ 1 = 2 \|/);
  const dropped = change(six, { columns: { size: 5, kernel: 1, stride: 4, padding: 0 } });
  assert.equal(run(dropped).output[0]!.length, 2);
  const behind = change(six, { columns: { size: 6, kernel: 2, stride: 3 } }); // the facts of T18: 2, not 3
  assert.equal(run(behind).output[0]!.length, 2);
  assert.match(size(run(behind)), /− 1 = 2 \| Rounding up would give 3, but the last window would start behind the last of the pixels/);
});

test("why overlap is constant or not, by hand", () => {
  const why = (edit: Parameters<typeof change>[1]["columns"]): string => {
    const result = columns(DEFAULT, edit);
    assert.ok(result.mode !== "pool");
    return result.overlap.sentence;
  };
  assert.match(why({}), /^Stride 2 does not divide kernel 3, so the counts repeat 2 and 1\. The count is not constant\.$/);
  assert.match(why({ kernel: 4, padding: 2 }), /^Stride 2 divides kernel 4, .* 2 taps\. The count is constant over the whole image\.$/);
  assert.match(why({ kernel: 4, padding: 1 }), /constant in the interior; at the border, fewer windows reach a pixel\.$/);
  assert.match(why({ dilation: 2 }), /share the divisor 2, so taps never meet 1 of every 2 pixels: the counts repeat 3 and 0\./);
  assert.match(why({ stride: 4 }), /^Kernel 3 is smaller than stride 4, so the counts repeat 1, 1, 1 and 0\./);
  assert.match(why({ kernel: 4, size: 1 }), /^Stride 2 divides kernel 4, .* 2 taps\. The image is too small to have an interior\.$/); // 1 1 1 1
  assert.match(why({ kernel: 4, size: 2, padding: 2 }), /The count is constant over the whole image\.$/); // 2 2
  assert.match(why({ stride: 1, size: 2 }), /The image is too small to have an interior\.$/); // 1 2 2 1
  assert.match(why({ stride: 1 }), /^Stride 1 puts all 3 taps on every interior pixel\./);
});
