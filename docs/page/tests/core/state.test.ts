import assert from "node:assert/strict";
import { test } from "node:test";

import { decode, DEFAULT, encode, PRESETS } from "../../src/core/index.ts";
import { anyState } from "./states.ts";

test("every state comes back from its address exactly, with or without #", () => {
  for (let seed = 0; seed < 2000; seed++) {
    const settings = anyState(seed);
    assert.deepEqual(decode(`#${encode(settings)}`), { settings }, `state ${seed}`);
    assert.deepEqual(decode(encode(settings)), { settings });
  }
  for (const { id, settings } of PRESETS) assert.deepEqual(decode(encode(settings)), { settings }, id);
});

test("an address is made of characters that survive being copied", () => {
  for (let seed = 0; seed < 200; seed++) assert.match(encode(anyState(seed)), /^[a-z0-9_=&,-]+$/);
});

test("no address is the default, without a word", () => {
  assert.deepEqual(decode(""), { settings: DEFAULT });
  assert.deepEqual(decode("#"), { settings: DEFAULT });
});

const GOOD = encode(DEFAULT);

for (const [what, bad] of Object.entries({
  "words that say nothing": "hello",
  "a missing part": GOOD.replace("&ceil=0", ""),
  "a part twice": `${GOOD}&ceil=0`,
  "an unknown part": `${GOOD}&colour=1`,
  "rows where they follow the columns": `${GOOD}&rows=1,1,1,0,0,1`,
  "an unknown mode": GOOD.replace("conv_transpose", "deconv"),
  "three dimensions": GOOD.replace("dims=1", "dims=3"),
  "a size of 9": GOOD.replace("columns=3,", "columns=9,"),
  "a kernel of 0": GOOD.replace("columns=3,3", "columns=3,0"),
  "a stride of 5": GOOD.replace("3,3,2", "3,3,5"),
  "an axis of five numbers": GOOD.replace(",0,0,1&", ",0,0&"),
  "an axis of seven numbers": GOOD.replace(",0,0,1&", ",0,0,1,1&"),
  "an input of two numbers": GOOD.replace("input=1,2,3", "input=1,2"),
  "an input of two rows": GOOD.replace("input=1,2,3", "input=1,2,3_1,2,3"),
  "a fraction": GOOD.replace("input=1,", "input=1.5,"),
  "a number with spaces": GOOD.replace("input=1,", "input= 1,"),
  "a number in other digits": GOOD.replace("input=1,", "input=0x1,"),
  "a leading zero": GOOD.replace("input=1,", "input=01,"),
  "minus zero": GOOD.replace("input=1,", "input=-0,"),
  "a number of four digits": GOOD.replace("input=1,", "input=1000,"),
  "no number": GOOD.replace("input=1,", "input=,"),
  "a flag of 2": GOOD.replace("linked=1", "linked=2"),
  "a probe of 100": GOOD.replace("probe=0", "probe=100"),
  "percent signs": GOOD.replaceAll(",", "%2C"),
  "a script": `${GOOD}&<script>alert(1)</script>`,
  "an inherited name": "__proto__=1&constructor=2",
})) {
  test(`an address with ${what} gives the default and a notice`, () => {
    assert.notEqual(bad, GOOD);
    const { settings, notice } = decode(bad);
    assert.deepEqual(settings, DEFAULT);
    assert.match(notice ?? "", /^The address holds settings that cannot be read \([^<>]+\), so the page starts afresh\.$/);
  });
}

test("no cut of an address is taken for another", () => {
  for (let length = 1; length < GOOD.length; length++) {
    const { settings, notice } = decode(GOOD.slice(0, length));
    assert.ok(notice !== undefined, GOOD.slice(0, length));
    assert.deepEqual(settings, DEFAULT);
  }
});
