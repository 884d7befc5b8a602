import assert from "node:assert/strict";
import { test } from "node:test";

import type { Page } from "playwright-core";

import { run } from "../../src/core/index.ts";
import type { ConvResult, PoolResult } from "../../src/core/types.ts";
import { VECTORS, type Vector } from "../core/vectors.ts";
import { go, numbers, numeral, texts, visit } from "./visit.ts";

/** Every seventh case and every problem: all modes, both dimensions, small and large. */
const SAMPLE = VECTORS.filter((vector, index) => index % 7 === 0 || "problem" in vector.expected);

test("the page shows what the engine computed", async () => {
  await visit({}, async (page) => {
    for (const vector of SAMPLE) {
      const { name: _, expected, ...settings } = vector;
      await go(page, settings);
      if ("problem" in expected) await assertRefused(page, vector);
      else if ("indices" in expected) await assertPool(page, vector, expected);
      else await assertConv(page, vector, expected);
    }
  });
});

test("the sample holds every mode in both dimensions, fitting and not", () => {
  const kinds = new Set(SAMPLE.map(({ mode, dims, expected }) => `${mode} ${dims} ${"problem" in expected}`));
  for (const mode of ["conv", "conv_transpose", "pool"]) for (const dims of [1, 2]) assert.ok(kinds.has(`${mode} ${dims} false`), mode);
  assert.ok(SAMPLE.filter(({ expected }) => "problem" in expected).length >= 5);
});

async function assertConv(page: Page, vector: Vector, expected: Extract<Vector["expected"], { sums: number[] }>): Promise<void> {
  const { name, mode, dims } = vector;
  const forward = mode === "conv";
  const transpose = forward ? expected.back : expected.output;
  assert.deepEqual(await numbers(page, "input"), vector.input, `${name}: input`);
  assert.deepEqual(await numbers(page, "kernel"), vector.kernel, `${name}: kernel`);
  assert.deepEqual(await numbers(page, "output"), expected.output, `${name}: output`);
  assert.deepEqual(await numbers(page, "zero-output"), transpose, `${name}: zero insertion`);
  assert.deepEqual(
    await numbers(page, "zero-flipped"),
    [...vector.kernel].reverse().map((row) => [...row].reverse()),
    `${name}: flipped kernel`,
  );
  assert.deepEqual(await numbers(page, "inner-cx"), forward ? expected.output : expected.back, `${name}: Cx`);
  assert.deepEqual(await numbers(page, "inner-cty"), transpose, `${name}: Cᵀy`);
  assert.deepEqual(await numbers(page, forward ? "inner-y" : "inner-x"), expected.probe, `${name}: probe`);
  const counts = (await texts(page, "overlap-grid")).map((row) => row.map(Number));
  assert.deepEqual(counts, expected.overlap, `${name}: overlap`);
  if (dims === 1) {
    const stacks = await page.$$eval("#overlap-grid .stack", (all) => all.map((stack) => stack.children.length));
    assert.deepEqual(stacks, expected.overlap[0], `${name}: blocks of the overlap`);
  }
  const hint = (await page.textContent("#overlap-grid-caption .hint")) ?? "";
  assert.equal(hint === "constant", expected.everywhere, `${name}: constant`);
  assert.equal(hint !== "not constant", expected.interior || expected.everywhere, `${name}: constant inside`);

  const sums = await page.$$eval(".phase .bar b", (all) => all.map((sum) => sum.textContent ?? ""));
  assert.deepEqual(sums.map(numeral), expected.sums, `${name}: phase sums`);
  await assertPhases(page, vector, transpose);

  if (expected.matrix && Math.max(expected.matrix.length, expected.matrix[0]!.length) <= 27) {
    const dotted = (rows: string[][]) => rows.map((row) => row.map((text) => (text === "·" ? 0 : numeral(text))));
    assert.deepEqual(dotted(await texts(page, "matrix-c")), expected.matrix, `${name}: C`);
    const turned = expected.matrix[0]!.map((_, j) => expected.matrix!.map((row) => row[j]!));
    assert.deepEqual(dotted(await texts(page, "matrix-ct")), turned, `${name}: its transpose`);
  }

  await page.evaluate(() => document.getElementById("step-last")!.click());
  if (forward) {
    assert.deepEqual(await numbers(page, "step-columns"), expected.columns, `${name}: columns`);
    assert.deepEqual(await numbers(page, "step-product"), expected.output, `${name}: product`);
  } else {
    const kept = (await texts(page, "step-image")).map((row) => row.filter((text) => text !== "✕")).filter((row) => row.length > 0);
    assert.deepEqual(
      kept.map((row) => row.map(numeral)),
      expected.output,
      `${name}: after the crop`,
    );
  }

  const equal = (await page.textContent("#inner-equal")) ?? "";
  const dot = (a: number[][], b: number[][]) => a.flat().reduce((sum, value, index) => sum + value * b.flat()[index]!, 0);
  const inner = dot(expected.probe, expected.output);
  assert.deepEqual(equal.split(" = ").map(numeral), [inner, inner], `${name}: inner products`);
  const sizes = await page.$$eval("#size .numbers", (all) => all.map((line) => line.textContent ?? ""));
  const shown = sizes.map((line) => numeral(line.split("=").at(-1)!));
  const [rows, columns] = [expected.output.length, expected.output[0]!.length];
  assert.deepEqual(shown, dims === 1 || vector.linked ? [columns] : [rows, columns], `${name}: sizes`);
  await assertSums(page, vector, expected.output);
}

/** Each output's sum, written out: its products add up to the output, and each is made of numbers that are there. */
async function assertSums(page: Page, vector: Vector, output: number[][]): Promise<void> {
  await page.evaluate(() =>
    document.querySelector("#grids details")!.hasAttribute("open") ? null : document.querySelector<HTMLElement>("#grids summary")!.click(),
  );
  await page.waitForFunction((count) => document.querySelectorAll("#sums tr").length === count, output.flat().length);
  const lines = await page.$$eval("#sums td", (all) =>
    all.map((line) => ({
      terms: [...line.querySelectorAll(".term")].map((term) => ["w", "v"].map((part) => term.querySelector(`.${part}`)?.textContent ?? "")),
      result: line.querySelector(".r")?.textContent ?? "",
    })),
  );
  const bare = (text: string) => numeral(text.replace(/[()]/g, ""));
  assert.deepEqual(
    lines.map(({ result }) => bare(result)),
    output.flat(),
    `${vector.name}: results of the sums`,
  );
  assert.deepEqual(
    lines.map(({ terms }) => terms.reduce((sum, [weight, value]) => sum + bare(weight!) * bare(value!), 0)),
    output.flat(),
    `${vector.name}: products of the sums`,
  );
}

/** The phases, put back where their heads say, are the whole. */
async function assertPhases(page: Page, vector: Vector, whole: number[][]): Promise<void> {
  const cells = await page.$$eval(".phase", (phases) =>
    phases.flatMap((phase) => {
      const table = phase.querySelector("table")!;
      const heads = [...table.querySelectorAll("th[scope=col]")].map((head) => head.textContent ?? "").filter((head) => head !== "row");
      return [...table.querySelectorAll("tr")].flatMap((row) => {
        const place = row.querySelector("th[scope=row]")?.textContent ?? "0";
        return [...row.querySelectorAll("td[data-at]")].map((cell, j) => [place, heads[j] ?? "", cell.textContent ?? ""]);
      });
    }),
  );
  const put = whole.map((row) => row.map(() => NaN));
  for (const [row, column, text] of cells) put[Number(row)]![Number(column)] = numeral(text!);
  assert.deepEqual(put, whole, `${vector.name}: phases put together`);
}

async function assertPool(page: Page, vector: Vector, expected: Extract<Vector["expected"], { indices: number[][] }>): Promise<void> {
  const { name } = vector;
  assert.deepEqual(await numbers(page, "output"), expected.output, `${name}: output`);
  assert.deepEqual(await numbers(page, "pool-indices"), expected.indices, `${name}: indices`);
  assert.deepEqual(await numbers(page, "pool-unpooled"), expected.unpooled, `${name}: unpooled`);
  const overwritten = await texts(page, "pool-overwritten");
  assert.deepEqual(
    overwritten.map((row) => row.map((text) => numeral(text.replace("≠ ", "")))),
    expected.overwritten,
    `${name}: overwritten`,
  );
  const differ = expected.unpooled.map((row, i) => row.map((value, j) => value !== expected.overwritten[i]![j]));
  assert.deepEqual(
    overwritten.map((row) => row.map((text) => text.startsWith("≠"))),
    differ,
    `${name}: where they differ`,
  );
  assert.deepEqual(await numbers(page, "pool-wins"), expected.wins, `${name}: wins`);
  assert.deepEqual(
    (await texts(page, "overlap-grid")).map((row) => row.map(Number)),
    expected.overlap,
    `${name}: overlap`,
  );
  assert.deepEqual(await numbers(page, "inner-y"), expected.probe, `${name}: probe`);
  assert.deepEqual(await numbers(page, "inner-cty"), expected.back, `${name}: back`);
  for (const hidden of ["matrix", "zero-insertion", "phases", "stepper", "products"])
    assert.equal(await page.isVisible(`#${hidden}`), false);
}

async function assertRefused(page: Page, vector: Vector): Promise<void> {
  const sentence = (await page.textContent("#trouble")) ?? "";
  assert.ok(await page.isVisible("#trouble"), `${vector.name}: no sentence`);
  assert.match(sentence, /\d.*\.$/, `${vector.name}: a sentence with numbers`);
  assert.ok(((await page.textContent("#readout")) ?? "").includes(sentence.trim()), `${vector.name}: the bar says it too`);
  assert.deepEqual(await numbers(page, "input"), vector.input, `${vector.name}: the input stays`);
  assert.equal(await page.isVisible("#output"), false);
  assert.deepEqual(await page.$$eval("#views > section:not([hidden])", (all) => all.map(({ id }) => id)), ["grids"]);
  assert.equal(await page.isVisible("#controls"), true);
}

test("code, sentences and sizes are the core's own", async () => {
  await visit({}, async (page) => {
    for (const vector of SAMPLE.filter(({ expected }) => !("problem" in expected)).slice(0, 12)) {
      const { name: _, expected: __, ...settings } = vector;
      await go(page, settings);
      const result: ConvResult | PoolResult = run(settings);
      assert.equal(await page.textContent("#code-minidcnn"), result.calls.minidcnn);
      assert.equal(await page.textContent("#code-pytorch"), result.calls.pytorch);
      assert.equal(await page.textContent("#size [data-axis=columns] .verdict"), result.sizes.at(-1)!.sentence);
      if (result.mode === "pool") assert.equal(await page.textContent("#pool-verdict"), result.sentence);
      else {
        assert.equal(await page.textContent("#phases-verdict"), result.phases.sentence);
        assert.equal(await page.textContent("#overlap-verdict"), result.overlap.sentence);
      }
    }
  });
});
