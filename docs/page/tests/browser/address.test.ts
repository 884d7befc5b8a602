import assert from "node:assert/strict";
import { test } from "node:test";

import type { Page } from "playwright-core";

import { check, DEFAULT, encode } from "../../src/core/index.ts";
import { anyState } from "../core/states.ts";
import { go, hash, numbers, visit } from "./visit.ts";

/** All that can be seen or heard of the page's state. */
async function picture(page: Page): Promise<Record<string, unknown>> {
  return page.evaluate(() => ({
    text: document.getElementById("views")!.innerText.split("\n"),
    checked: [...document.querySelectorAll<HTMLInputElement>("#controls input")].map((input) => [
      input.name || input.id,
      input.value,
      input.checked,
    ]),
    fields: [...document.querySelectorAll<HTMLInputElement>("#views input")].map((input) => [input.id, input.value]),
    marks: [...document.querySelectorAll<HTMLElement>("[data-mark], [data-step]")]
      .filter((cell) => cell.checkVisibility())
      .map((cell) => [cell.closest("table, section")!.id, cell.dataset["at"], cell.dataset["mark"]]),
    pressed: [...document.querySelectorAll('[aria-pressed="true"]')].map((button) => button.textContent),
  }));
}

function assertSame(ours: Record<string, unknown>, theirs: Record<string, unknown>, address: string): void {
  for (const [name, value] of Object.entries(theirs)) assert.deepEqual(ours[name], value, `${name} of ${address}`);
}

test("the address holds the whole state and gives it back", async () => {
  for (let seed = 1; seed <= 8; seed++) {
    const settings = anyState(seed);
    const fits = check(settings).ok;
    const more = fits && settings.mode !== "pool" ? `&at=${seed % 2 ? "tap,0,0" : "output,0,0"}&step=1` : fits ? "&at=input,0,0" : "";
    let first: Record<string, unknown> = {};
    let address = "";
    await visit({ hash: `#${encode(settings)}${more}` }, async (page) => {
      assert.equal(await page.isVisible("#notice"), false, encode(settings));
      assert.deepEqual(await numbers(page, "input"), settings.input);
      await page.fill("#input-value", await page.inputValue("#input-value")); // any change writes the address anew
      await page.evaluate(() => (document.activeElement as HTMLElement).blur());
      address = await hash(page);
      first = await picture(page);
    });
    assert.equal(address, `#${encode(settings)}${more}`);
    await visit({ hash: address }, async (page) => assertSame(await picture(page), first, address));
  }
});

test("a reader's way through the page can be sent on", async () => {
  let address = "";
  let first: Record<string, unknown> = {};
  await visit({ still: true }, async (page) => {
    await page.click("[data-preset=checkerboard]");
    await page.click("#linked");
    await page.click('#rows-stride label:has(input[value="3"])');
    await page.click('#kernel td[data-at="1,2"]');
    await page.keyboard.press("-");
    await page.keyboard.press("4");
    await page.click("#step-on");
    await page.click("#step-on");
    await page.fill("#probe", "7");
    await page.evaluate(() => (document.activeElement as HTMLElement).blur());
    address = await hash(page);
    first = await picture(page);
  });
  assert.match(address, /&at=tap,1,2&step=2$/);
  await visit({ hash: address }, async (page) => assertSame(await picture(page), first, address));
});

test("back and forward, and an address typed over another, are followed", async () => {
  const other = { ...DEFAULT, kernel: [[2, 2, 2]] };
  await visit({}, async (page) => {
    await page.evaluate((next) => (location.hash = next), encode(other));
    await page.waitForFunction(() => document.querySelector("#kernel td")?.textContent === "2");
    await page.goBack();
    await page.waitForFunction(() => document.querySelector("#kernel td")?.textContent === "1");
    await page.goForward();
    await page.waitForFunction(() => document.querySelector("#kernel td")?.textContent === "2");
  });
});

const good = encode(DEFAULT);
const MALFORMED = [
  "#nonsense",
  "#%E0%A4%A",
  "#mode=conv",
  `#${good.replace("mode=conv_transpose", "mode=wavelet")}`,
  `#${good.replace(/kernel=[^&]*/, "kernel=1,2")}`,
  `#${good.replace(/kernel=[^&]*/, "kernel=<img src=x onerror=alert(1)>,2,3")}`,
  `#${good.replace(/input=[^&]*/, "input=1,2,99999999999999999999")}`,
  `#${good.replace(/columns=[^&]*/, "columns=3,3,0,0,0,1")}`,
  `#${good}&more=1`,
  `#${good}&${good}`,
  `#${good}&at=output,0`,
  `#${good}&at=elsewhere,0,0`,
  `#${good}&at=output,0,1&at=output,0,2`,
  `#${good}&step=-1`,
  `#${good}&step=1e3`,
];

test("an address that cannot be read is ignored, with a notice that can be dismissed", async () => {
  const assertNotice = async (page: Page, address: string) => {
    assert.equal(await page.isVisible("#notice"), true, address);
    assert.match((await page.textContent("#notice span")) ?? "", /cannot be read .*starts afresh/, address);
    assert.deepEqual(await numbers(page, "output"), [[1, 10, 102, 20, 203, 30, 300]], address);
    await page.click("#dismiss");
    assert.equal(await page.isVisible("#notice"), false, address);
  };
  for (const address of MALFORMED.slice(0, 3)) await visit({ hash: address }, (page) => assertNotice(page, address));
  await visit({}, async (page) => {
    for (const address of MALFORMED) {
      await go(page, { ...DEFAULT, kernel: [[3, 2, 1]] }); // something else, to be left
      await page.evaluate((next) => (location.hash = next), address);
      await page.waitForFunction(() => document.querySelector("#kernel td")?.textContent === "1");
      await assertNotice(page, address);
    }
  });
});

test("a selection or step beyond the image is left out quietly", async () => {
  await visit({ hash: `#${good}&at=output,0,99&step=999` }, async (page) => {
    assert.equal(await page.isVisible("#notice"), false);
    assert.equal(await page.locator("[data-mark]").count(), 0);
    assert.equal(await page.textContent("#step-position"), "7 of 7");
  });
});
