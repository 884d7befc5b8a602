import assert from "node:assert/strict";
import { test } from "node:test";

import type { Page } from "playwright-core";

import { change, PRESETS, related, run } from "../../src/core/index.ts";
import type { ConvResult, Position, Selection, Settings } from "../../src/core/types.ts";
import { go, hash, marked, visit } from "./visit.ts";

const preset = (id: string): Settings => PRESETS.find((each) => each.id === id)!.settings;
const places = (positions: readonly Position[]) => positions.map(([i, j]) => `${i},${j}`).sort();
const sorted = async (page: Page, id: string) => (await marked(page, id)).sort();

/** One selection, and what carries a mark in every view. */
async function assertLinked(page: Page, result: ConvResult, selection: NonNullable<Selection>): Promise<void> {
  const found = related(result, selection);
  const what = JSON.stringify(selection);
  const transposed = result.mode === "conv_transpose";
  const [small, large] = transposed ? [found.inputs, found.outputs] : [found.outputs, found.inputs];
  assert.equal(await page.textContent("#readout"), found.sentence, what);
  assert.deepEqual(await sorted(page, "input"), places(found.inputs), `${what}: input`);
  assert.deepEqual(await sorted(page, "output"), places(found.outputs), `${what}: output`);
  assert.deepEqual(await sorted(page, "kernel"), places(found.taps), `${what}: kernel`);
  assert.equal(
    await page.locator("td[data-mark=related]").count(),
    await page.locator('td[aria-description="belongs to the selection"]').count(),
    `${what}: in words`,
  );
  for (const id of ["zero-output", "overlap-grid", "inner-x", "inner-cty"])
    assert.deepEqual(await sorted(page, id), places(large), `${what}: ${id}`);
  for (const id of ["step-product", "inner-y", "inner-cx"]) assert.deepEqual(await sorted(page, id), places(small), `${what}: ${id}`);
  const [rows, columns] = [result.kernel.length, result.kernel[0]!.length];
  assert.deepEqual(
    await sorted(page, "zero-flipped"),
    places(found.taps.map(([a, b]) => [rows - 1 - a, columns - 1 - b])),
    `${what}: flipped`,
  );
  assert.equal((await marked(page, "zero-padded")).length, small.length, `${what}: stretched`);
  const inPhases = await page.locator(".phase td[data-mark]").count();
  assert.equal(inPhases, large.length, `${what}: phases`);
  const entries = found.entries.map(({ row, column }): Position => [row, column]);
  if (await page.isVisible("#matrix-c")) {
    assert.deepEqual(await sorted(page, "matrix-c"), places(entries), `${what}: C`);
    assert.deepEqual(await sorted(page, "matrix-ct"), places(entries.map(([i, j]) => [j, i])), `${what}: its transpose`);
  } else {
    const squares = await page.$$eval("#matrix .related", (all) => all.map((path) => (path.getAttribute("d") ?? "").split("M").length - 1));
    assert.deepEqual(squares, [entries.length, entries.length], `${what}: pictures`);
  }
  if (result.settings.dims === 1) {
    const sums = found.outputs.map(([, j]): Position => (transposed ? [result.input[0]!.length, j] : [j, result.input[0]!.length]));
    assert.deepEqual(await sorted(page, "products-grid"), places([...entries, ...sums]), `${what}: products`);
  }
  const own = { input: "input", output: "output", tap: "kernel", entry: "matrix-c" }[selection.kind];
  const at = selection.kind === "entry" ? `${selection.row},${selection.column}` : selection.at.join(",");
  if (await page.isVisible(`#${own}`)) {
    assert.deepEqual(await marked(page, own, "selected"), [at], `${what}: the one that is selected`);
    assert.equal(await page.getAttribute(`#${own} td[data-at="${at}"]`, "aria-selected"), "true");
    assert.equal(await page.locator(`#${own} td[aria-selected="true"]`).count(), 1);
  }
}

const SHOWN: [string, Settings][] = [
  ...["digits", "checkerboard", "conv", "dead", "same", "gaps"].map((id): [string, Settings] => [id, preset(id)]),
  ["a convolution of a row", change(preset("same"), { mode: "conv", columns: { size: 7 } })],
];
for (const [id, settings] of SHOWN) {
  test(`every view follows one selection: ${id}`, async () => {
    const result = run(settings) as ConvResult;
    await visit({}, async (page) => {
      await go(page, settings);
      const last = (grid: number[][]): Position => [grid.length - 1, grid[0]!.length - 1];
      for (const [grid, kind, values] of [
        ["input", "input", result.input],
        ["output", "output", result.output],
        ["kernel", "tap", result.kernel],
      ] as const) {
        for (const at of [[0, 0], last(values)] as Position[]) {
          await page.click(`#${grid} td[data-at="${at.join(",")}"]`);
          assert.ok((await hash(page)).includes(`&at=${kind},${at.join(",")}`));
          await assertLinked(page, result, { kind, at });
        }
      }
      for (const [row, column] of [[0, 0], last(result.matrix.entries)] as Position[]) {
        if (await page.isVisible("#matrix-c")) await page.click(`#matrix-c td[data-at="${row},${column}"]`);
        else {
          await page.fill("#entry-row", String(row));
          await page.fill("#entry-column", String(column));
        }
        await assertLinked(page, result, { kind: "entry", row, column });
      }
    });
  });
}

test("a cell of any view selects what it stands for", async () => {
  const settings = preset("digits");
  await visit({}, async (page) => {
    await go(page, settings);
    const cases: [string, string, string][] = [
      ["products-grid", "1,3", "entry,1,3"],
      ["products-grid", "3,4", "output,0,4"],
      ["matrix-c", "1,2", "entry,1,2"],
      ["matrix-ct", "2,1", "entry,1,2"],
      ["zero-padded", "0,4", "input,0,1"],
      ["zero-flipped", "0,0", "tap,0,2"],
      ["zero-output", "0,5", "output,0,5"],
      ["phase-1", "0,1", "output,0,3"],
      ["overlap-grid", "0,6", "output,0,6"],
      ["step-weights", "1,0", "tap,0,1"],
      ["step-columns", "2,1", "entry,1,4"],
      ["step-image", "0,2", "output,0,2"],
      ["step-product", "0,2", "input,0,2"],
      ["inner-x", "0,1", "output,0,1"],
      ["inner-y", "0,1", "input,0,1"],
    ];
    for (const [grid, at, expected] of cases) {
      await page.click(`#${grid} td[data-at="${at}"]`);
      assert.equal(/&at=([^&]*)/.exec(await hash(page))?.[1], expected, grid);
    }
    await page.click('#zero-padded td[data-at="0,0"]');
    assert.doesNotMatch(await hash(page), /&at=/, "a zero of the margin stands for nothing");
  });
});

test("the picture of a large matrix selects entries, and shows row and column", async () => {
  const settings = preset("checkerboard");
  await visit({}, async (page) => {
    await go(page, settings);
    const picture = page.locator("#matrix .picture svg").first();
    const box = (await picture.boundingBox())!;
    const result = run(settings) as ConvResult;
    const [rows, columns] = [result.matrix.entries.length, result.matrix.entries[0]!.length];
    await picture.click({ position: { x: ((12 + 0.5) * box.width) / columns, y: ((3 + 0.5) * box.height) / rows } });
    assert.match(await hash(page), /&at=entry,3,12/);
    await assertLinked(page, result, { kind: "entry", row: 3, column: 12 });
    assert.equal(await page.inputValue("#entry-row"), "3");
    assert.match((await page.textContent("#entry")) ?? "", /^= /);
  });
});

test("in pooling, a window and its winner are linked", async () => {
  const settings = preset("pool-overlap");
  await visit({}, async (page) => {
    await go(page, settings);
    await page.click('#output td[data-at="0,1"]');
    assert.deepEqual(await marked(page, "input"), ["0,2", "0,3", "0,4"]);
    assert.deepEqual(await marked(page, "pool-indices"), ["0,1"]);
    assert.equal(await page.getAttribute('#pool-unpooled td[data-at="0,2"]', "data-step"), "");
    await page.click('#pool-wins td[data-at="0,2"]');
    assert.deepEqual(await marked(page, "output"), ["0,0", "0,1"]);
    assert.match((await page.textContent("#readout")) ?? "", /wins 2/);
  });
});

test("marks are more than colours", async () => {
  await visit({}, async (page) => {
    await go(page, preset("digits"), "&at=output,0,2");
    const style = (selector: string, pseudo?: string) =>
      page.evaluate(
        ([query, part]) => {
          const { outlineStyle, outlineWidth, fontWeight, borderTopWidth, content } = getComputedStyle(
            document.querySelector(query!)!,
            part,
          );
          return { outlineStyle, outlineWidth, fontWeight, borderTopWidth, content };
        },
        [selector, pseudo] as const,
      );
    const plain = await style("#output td:not([data-mark])");
    const chosen = await style('#output td[data-mark="selected"]');
    const linked = await style('#input td[data-mark="related"]');
    assert.equal(plain.outlineStyle, "none");
    assert.deepEqual([chosen.outlineStyle, chosen.outlineWidth], ["solid", "3px"]);
    assert.deepEqual([linked.outlineStyle, linked.outlineWidth], ["dashed", "2px"]);
    assert.ok(Number(linked.fontWeight) > Number(plain.fontWeight));
    assert.notEqual((await style('#output td[data-mark="selected"]', "::before")).content, "none", "a marked corner");
    assert.notEqual((await style("#zero-padded td[data-step]", "::after")).content, "none", "hatching and a bar");
    const texts = await page.$$eval(".phase[data-mark]", (all) => all.map((card) => getComputedStyle(card, "::before").content));
    assert.deepEqual(texts, ['"belongs to the selection"']);
  });
});
