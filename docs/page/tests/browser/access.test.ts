import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import type { Page } from "playwright-core";

import { change, DEFAULT, encode, PRESETS, run } from "../../src/core/index.ts";
import { assertFits, go, visit } from "./visit.ts";

const AXE = readFileSync("node_modules/axe-core/axe.min.js", "utf8");

const LARGEST = {
  ...change(DEFAULT, { dims: 2, columns: { size: 8, kernel: 5, stride: 4, dilation: 3, outputPadding: 3 } }),
  probe: 99,
};
const preset = (id: string) => PRESETS.find((each) => each.id === id)!.settings;
const MISFIT: [string, string] = ["a misfit", `#${encode(change(DEFAULT, { mode: "conv", columns: { size: 1 } }))}`];
const STATES: Record<320 | 1200, [string, string][]> = {
  320: [["the default", ""], ["a convolution", `#${encode(preset("conv"))}&at=tap,1,1&step=12`], MISFIT, ["a notice", "#nonsense"]],
  1200: [
    ["a checkerboard", `#${encode(preset("checkerboard"))}&at=entry,1,3&step=20`],
    ["a crop", `#${encode(preset("fcn"))}&at=input,0,2&step=10`],
    ["pooling", `#${encode(preset("pool-overlap"))}&at=output,0,1`],
    MISFIT,
  ],
};

/** Everything that axe has to say, its best practices included; what it cannot decide is not a finding. */
async function findings(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: { run(): Promise<{ violations: { id: string; nodes: { html: string; failureSummary: string }[] }[] }> };
    };
    const { violations } = await axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.length} of ${nodes[0]!.html.slice(0, 200)} ${nodes[0]!.failureSummary}`);
  });
}

for (const width of [320, 1200] as const) {
  for (const dark of [false, true]) {
    test(`axe finds nothing: ${width} px, ${dark ? "dark" : "light"}`, async () => {
      await visit({ width, dark, still: true }, async (page) => {
        for (const [name, hash] of STATES[width]) {
          await page.evaluate((next) => (location.hash = next), hash);
          await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 50)));
          assert.equal(await page.isVisible("#notice"), name === "a notice");
          assert.equal(await page.isVisible("#trouble"), name === "a misfit");
          assert.deepEqual(await findings(page), [], name);
          await assertFits(page, name);
        }
      });
    });
  }
}

test("axe would find something", async () => {
  await visit({}, async (page) => {
    await page.evaluate(() =>
      document.querySelectorAll(".lead").forEach((lead) => lead.setAttribute("style", "color: #ddd; background: #fff")),
    );
    assert.match((await findings(page)).join(), /color-contrast/);
  });
});

for (const width of [320, 768, 1024, 1200]) {
  test(`nothing sticks out sideways: ${width} px`, async () => {
    await visit({ width, still: true }, async (page) => {
      for (const each of PRESETS) {
        await go(page, each.settings);
        await assertFits(page, each.id);
      }
      await go(page, LARGEST, "&at=output,40,40&step=70");
      const { output } = run(LARGEST);
      assert.equal(output.length, 44);
      await assertFits(page, "the largest");
      await page.evaluate(() => document.querySelector<HTMLElement>("#grids summary")!.click());
      await page.waitForFunction((count) => document.querySelectorAll("#sums tr").length === count, output.flat().length);
      await assertFits(page, "the largest with all sums");
    });
  });
}

test("both themes are there", async () => {
  const colours = new Set<string>();
  for (const dark of [false, true])
    await visit(
      { dark },
      async (page) => void colours.add(await page.evaluate(() => getComputedStyle(document.body.parentElement!).backgroundColor)),
    );
  assert.equal(colours.size, 2);
});

test("every table and every control has a name", async () => {
  await visit({}, async (page) => {
    const nameless = await page.evaluate(
      () =>
        [...document.querySelectorAll("#app table")].filter((table) => {
          const label = table.getAttribute("aria-labelledby");
          return (
            table.checkVisibility() && !(label && document.getElementById(label)?.textContent?.trim()) && !table.closest("[aria-label]")
          );
        }).length,
    );
    assert.equal(nameless, 0);
    const tree = await page.locator("#controls").ariaSnapshot();
    for (const name of ["Operation", "Dimensions", "input size", "kernel", "stride", "padding", "output_padding", "dilation"])
      assert.ok(tree.includes(name), name);
    await page.click('#dims label:has(input[value="2"])');
    await page.click("#linked");
    const names = [...(await page.locator("#controls").ariaSnapshot()).matchAll(/group "([^"]*)"/g)].map((match) => match[1]!);
    assert.equal(new Set(names).size, names.length, "no two groups have one name");
    assert.ok(names.includes("stride s of the rows"), names.join());
  });
});

test("changes are announced: the selection, the size, the step, what does not fit", async () => {
  await visit({}, async (page) => {
    const live = (id: string) =>
      page.evaluate((name) => document.getElementById(name)!.closest("[aria-live], [role=status], [role=alert]") !== null, id);
    for (const id of ["readout", "status", "step-sentence", "notice"]) assert.ok(await live(id), id);
    await page.click('#columns-size label:has(input[value="5"])');
    assert.equal(await page.textContent("#status"), "The output is 11.");
  });
});
