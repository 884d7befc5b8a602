import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

import { change, DEFAULT, run } from "../../src/core/index.ts";
import type { ConvResult } from "../../src/core/types.ts";
import { assertFits, PAGE, visit } from "./visit.ts";

const result = run(DEFAULT) as ConvResult;

for (const width of [320, 1200]) {
  test(`without JavaScript, an example can be read: ${width} px`, async () => {
    await visit({ script: false, width }, async (page) => {
      assert.equal(await page.isVisible("#app"), false);
      assert.equal(await page.isVisible("#example"), true);
      assert.match(await page.locator("noscript").innerText(), /needs JavaScript/);
      const box = await page.locator("#example").boundingBox();
      assert.ok(box && box.height > 300 && box.width <= width);
    });
    await visit({ width }, async (page) => assertFits(page, "with it"));
  });
}

test("the example's numbers are right", async () => {
  await visit({}, async (page) => {
    const rows = (table: number) =>
      page
        .locator("#example table")
        .nth(table)
        .evaluate((element) =>
          [...(element as HTMLTableElement).tBodies[0]!.rows].map((row) =>
            [...row.querySelectorAll("td")].map((cell) => cell.textContent ?? ""),
          ),
        );
    const { matrix, input, output } = result;
    const products = matrix.entries.map((row, i) => row.map((value, j) => (matrix.taps[i]![j]! < 0 ? "" : String(value * input[0]![i]!))));
    assert.deepEqual(await rows(0), [...products, output[0]!.map(String)]);
    assert.deepEqual(
      await rows(1),
      matrix.entries.map((row) => row.map(String)),
    );
    const text = (await page.locator("#example ul").innerText()).replace(/\s+/g, " ");
    const list = (values: readonly number[]) => `[${values.join(", ")}]`;
    const says = (part: string) => assert.ok(text.includes(part), `${part} in: ${text}`);
    says(`= ${output[0]!.length}:`);
    says(`${result.overlap.counts[0]!.join(", ")} kernels reach`);
    for (const part of result.phases.parts) says(`sum ${part.sum}`);
    says(`the output is ${list(run(change(DEFAULT, { columns: { padding: 1, outputPadding: 1 } })).output[0]!)}`);
    says(`SAME drops the last instead: ${list(output[0]!.slice(0, -1))}`);
    says(
      `of ${list(result.zeroInsertion.padded[0]!.map((cell) => cell.value))} with the flipped kernel ${list(result.zeroInsertion.flipped[0]!)}`,
    );
    const times = (matrix: number[][], vector: number[]) => matrix.map((row) => row.reduce((sum, value, j) => sum + value * vector[j]!, 0));
    const ones = times(
      matrix.entries,
      output[0]!.map(() => 1),
    );
    says(
      `${list(ones)}, and ${ones.map((value, i) => `${value}·${input[0]![i]}`).join(" + ")} = ${ones.reduce((sum, value, i) => sum + value * input[0]![i]!, 0)} = ${output[0]!.join(" + ")}`,
    );
    says(`y = ${list(times(matrix.entries, output[0]!))}, not y`);
  });
});

test("the page is one file that names nothing outside itself", () => {
  const html = readFileSync(fileURLToPath(PAGE), "utf8");
  const outside = [...html.matchAll(/(?:src|href|action)\s*=\s*["']?([^"'\s>]+)/gi)]
    .map((match) => match[1]!)
    .filter((url) => !/^(#|data:|\$\{|`)/.test(url));
  assert.deepEqual(outside, []);
  assert.doesNotMatch(html, /@import|url\((?!["']?data:)|<link[^>]*stylesheet/i);
  assert.doesNotMatch(html, /\b(fetch|XMLHttpRequest|WebSocket|sendBeacon|importScripts)\b/);
  const addresses = [...html.matchAll(/https?:\/\/[^"'`\s)]+/g)].map(([url]) => url);
  assert.deepEqual([...new Set(addresses)], ["http://www.w3.org/2000/svg"]);
});
