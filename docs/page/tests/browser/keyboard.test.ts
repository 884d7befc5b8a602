import assert from "node:assert/strict";
import { test } from "node:test";

import type { Page } from "playwright-core";

import { change, DEFAULT } from "../../src/core/index.ts";
import { go, hash, numbers, visit } from "./visit.ts";

/** What has the focus, by a name that lasts, and whether it can be seen there. */
async function focused(page: Page): Promise<{ name: string; seen: boolean; ringed: boolean }> {
  return page.evaluate(() => {
    const element = document.activeElement as HTMLElement;
    const name =
      element instanceof HTMLInputElement && element.type === "radio"
        ? element.name
        : element.closest("table[role=grid]")?.id ||
          element.id ||
          element.dataset["preset"] ||
          element.getAttribute("href") ||
          element.textContent ||
          "";
    const target = element instanceof HTMLInputElement && element.type === "radio" ? element.parentElement! : element;
    const box = target.getBoundingClientRect();
    const [x, y] = [box.left + Math.min(box.width, innerWidth) / 2, box.top + Math.min(box.height / 2, 20)];
    const top = document.elementFromPoint(Math.min(innerWidth - 1, Math.max(0, x)), y);
    const style = getComputedStyle(target);
    return {
      name,
      seen: top !== null && (target.contains(top) || top.contains(target)),
      ringed: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
    };
  });
}

/** Tabs on until something of that name has the focus. */
async function tabTo(page: Page, name: string, key = "Tab"): Promise<void> {
  for (let i = 0; i < 150; i++) {
    if ((await focused(page)).name === name) return;
    await page.keyboard.press(key);
  }
  assert.fail(`${name} is not reached by ${key}`);
}

for (const width of [320, 1200]) {
  test(`Tab goes through the whole page and out of it, and what has the focus is seen: ${width} px`, async () => {
    await visit({ width, still: true, hash: "" }, async (page) => {
      const expected = await page.evaluate(() => {
        const all = [...document.querySelectorAll<HTMLElement>("a[href], button, input, select, summary, [tabindex='0']")];
        const open = all.filter((element) => element.checkVisibility() && !element.matches(":disabled, fieldset:disabled *"));
        const names = open.map((element) =>
          element instanceof HTMLInputElement && element.type === "radio"
            ? element.name
            : element.closest("table[role=grid]")?.id || element.id,
        );
        return [...new Set(names.filter((name) => name !== ""))];
      });
      const walked: string[] = [];
      for (let i = 0; i < 200; i++) {
        await page.keyboard.press("Tab");
        const { name, seen, ringed } = await focused(page);
        if (await page.evaluate(() => document.activeElement === document.body)) break;
        assert.ok(seen, `${name} is hidden when it has the focus`);
        assert.ok(ringed, `${name} shows no focus`);
        walked.push(name);
      }
      assert.ok(walked.length < 190, "the focus never leaves the page");
      assert.deepEqual(
        expected.filter((name) => !walked.includes(name)),
        [],
        "not reached",
      );
      for (const grid of ["input", "kernel", "output", "matrix-c", "matrix-ct"])
        assert.equal(walked.filter((name) => name === grid).length, 1, `${grid} is one stop`);
    });
  });
}

test("all of it without a mouse", async () => {
  await visit({ still: true }, async (page) => {
    await page.keyboard.press("Tab");
    assert.equal((await focused(page)).name, "#main", "the first stop skips what comes before the numbers");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement?.id), "grids-title");
    assert.equal(await page.isVisible("#notice"), false, "the address holds the state, not a place");
    await page.keyboard.press("Tab");
    assert.equal((await focused(page)).name, "input");
    await tabTo(page, "#main", "Shift+Tab");
    await tabTo(page, "dead");
    await page.keyboard.press("Enter");
    assert.equal(await page.getAttribute('[data-preset="dead"]', "aria-pressed"), "true");

    await tabTo(page, "mode");
    await page.keyboard.press("ArrowLeft");
    assert.match(await hash(page), /mode=conv&/);
    await page.keyboard.press("ArrowRight");
    assert.match(await hash(page), /mode=conv_transpose&/);
    await tabTo(page, "columns-stride");
    await page.keyboard.press("ArrowRight");
    await tabTo(page, "columns-dilation");
    await page.keyboard.press("ArrowLeft");
    assert.match(await hash(page), /columns=3,3,3,0,0,1/);

    await tabTo(page, "input");
    await page.keyboard.press("Home");
    assert.match(await hash(page), /&at=input,0,0/);
    await page.keyboard.press("End");
    assert.match(await hash(page), /&at=input,0,2/);
    for (const key of ["4", "2", "-", "Backspace"]) await page.keyboard.press(key);
    assert.deepEqual(await numbers(page, "input"), [[1, 2, -4]]);
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("Delete");
    assert.deepEqual(await numbers(page, "input"), [[1, 0, -4]]);
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    assert.match(await hash(page), /&at=input,0,2/, "the edge holds");

    await tabTo(page, "kernel");
    await page.keyboard.press("End");
    await page.keyboard.press("7");
    assert.deepEqual(await numbers(page, "kernel"), [[1, 1, 7]]);
    await tabTo(page, "output");
    assert.match(await hash(page), /&at=tap,0,2/, "Tab alone selects nothing");
    await page.keyboard.press("Enter");
    assert.match(await hash(page), /&at=output,0,\d/);
    await page.keyboard.press("End");
    assert.match(await hash(page), /&at=output,0,8/);
    assert.equal((await numbers(page, "output"))[0]!.at(-1), -28);
    assert.match((await page.textContent("#readout")) ?? "", /Output 8 \(−28\)/);

    await tabTo(page, "matrix-c");
    await page.keyboard.press("Control+Home");
    await page.keyboard.press("ArrowDown");
    assert.match(await hash(page), /&at=entry,1,0/);
    await page.keyboard.press("Control+End");
    assert.match(await hash(page), /&at=entry,2,8/);

    await tabTo(page, "step-on");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Space");
    assert.match(await hash(page), /&step=2/);
    await tabTo(page, "probe");
    await page.keyboard.press("ArrowUp");
    assert.match(await hash(page), /probe=1/);
    await page.keyboard.press("Escape");
    assert.doesNotMatch(await hash(page), /&at=/);
    await tabTo(page, "columns-size", "Shift+Tab");
    for (let i = 0; i < 5; i++) await page.keyboard.press("ArrowRight");
    assert.equal((await numbers(page, "input"))[0]!.length, 8);
    assert.equal((await focused(page)).name, "columns-size", "the focus stays where it is");
  });
});

test("editing keeps the focus while the page is drawn anew", async () => {
  await visit({ still: true }, async (page) => {
    await page.click('#input td[data-at="0,1"]');
    await page.keyboard.press("9");
    await page.keyboard.press("9");
    await page.keyboard.press("9");
    assert.deepEqual(await numbers(page, "input"), [[1, 999, 3]]);
    await page.keyboard.press("5");
    assert.deepEqual(await numbers(page, "input"), [[1, 5, 3]], "a digit too many starts again");
    assert.equal(await page.evaluate(() => (document.activeElement as HTMLElement).dataset["at"]), "0,1");
  });
});

test("the focus stays in a grid whose size changes under it", async () => {
  await visit({ still: true }, async (page) => {
    await page.click('#output td[data-at="0,5"]');
    await page.keyboard.press("ArrowRight");
    await go(page, change(DEFAULT, { columns: { padding: 1 } }));
    assert.deepEqual(await focused(page), { name: "output", seen: true, ringed: true });
    assert.equal(await page.evaluate(() => (document.activeElement as HTMLElement).dataset["at"]), "0,4", "the last there is");
  });
});
