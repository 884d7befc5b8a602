import assert from "node:assert/strict";
import { test } from "node:test";

import type { Page } from "playwright-core";

import { PRESETS, run } from "../../src/core/index.ts";
import type { ConvResult } from "../../src/core/types.ts";
import { go, hash, texts, visit } from "./visit.ts";

const result = (id: string) => run(PRESETS.find((each) => each.id === id)!.settings) as ConvResult;
const minus = (value: number | null) => (value === null ? "" : value < 0 ? `−${-value}` : String(value));

async function assertStep(page: Page, { stepper }: ConvResult, index: number): Promise<void> {
  const step = stepper.at(index);
  assert.equal(await page.textContent("#step-sentence"), step.sentence);
  assert.equal(await page.textContent("#step-position"), `${index + 1} of ${stepper.count}`);
  assert.equal(await page.inputValue("#step"), String(index));
  assert.equal(await page.getAttribute("[aria-current=step]", "data-stage"), step.stage);
  assert.deepEqual(
    await texts(page, "step-columns"),
    step.columns.map((row) => row.map(minus)),
    `step ${index}: columns`,
  );
  assert.deepEqual(
    await texts(page, "step-product"),
    step.product.map((row) => row.map(minus)),
    `step ${index}: product`,
  );
  const image = (await texts(page, "step-image")).map((row, i) => row.map((text, j) => (text === "✕" ? minus(step.image[i]![j]!) : text)));
  assert.deepEqual(
    image,
    step.image.map((row) => row.map(minus)),
    `step ${index}: image`,
  );
  const touched = await page.$$eval("#step-image td[data-step]", (all) => all.map((cell) => (cell as HTMLElement).dataset["at"]));
  assert.deepEqual(touched.sort(), step.touched.map((position) => position.join(",")).sort(), `step ${index}: touched`);
  const columns = await page.$$eval("#step-columns tr:nth-child(2) td[data-step]", (all) =>
    all.map((cell) => (cell as HTMLElement).dataset["at"]),
  );
  assert.deepEqual(columns, step.column < 0 ? [] : [`0,${step.column}`]);
  assert.equal((await hash(page)).includes("&step="), index > 0);
}

for (const id of ["digits", "same", "conv", "checkerboard"]) {
  test(`the stepper goes through every step: ${id}`, async () => {
    const expected = result(id);
    const { count } = expected.stepper;
    await visit({}, async (page) => {
      await go(page, expected.settings);
      await assertStep(page, expected, 0);
      for (let index = 1; index < Math.min(count - 1, 12); index++) {
        await page.click("#step-on");
        await assertStep(page, expected, index);
      }
      await page.click("#step-last");
      await assertStep(page, expected, count - 1);
      await page.click("#step-on", { force: true }); // it says that it is idle, and stays where it is for the keyboard
      await assertStep(page, expected, count - 1);
      assert.equal(await page.getAttribute("#step-on", "aria-disabled"), "true");
      await page.click("#step-back");
      await assertStep(page, expected, count - 2);
      await page.click("#step-first");
      await assertStep(page, expected, 0);
      await page.click("#step-back", { force: true });
      await assertStep(page, expected, 0);
      await page.locator("#step").focus();
      await page.keyboard.press("ArrowRight");
      await page.keyboard.press("ArrowRight");
      await assertStep(page, expected, 2);
    });
  });
}

for (const still of [false, true]) {
  test(`play runs to the end and stops${still ? ", with reduced motion as well" : ""}`, async () => {
    const expected = result("digits");
    await visit({ still }, async (page) => {
      await page.clock.install({ time: 0 });
      await page.clock.pauseAt(1000); // else a busy machine's own time would be added to what is asked for below
      await page.click("#step-play");
      assert.equal(await page.textContent("#step-play"), "Pause");
      await page.clock.runFor(1900);
      await assertStep(page, expected, 2);
      await page.click("#step-play");
      assert.equal(await page.textContent("#step-play"), "Play");
      await page.clock.runFor(5000);
      await assertStep(page, expected, 2);
      await page.click("#step-play");
      await page.clock.runFor(20_000);
      await assertStep(page, expected, expected.stepper.count - 1);
      assert.equal(await page.textContent("#step-play"), "Play");
      await page.click("#step-play");
      await assertStep(page, expected, 0);
    });
  });
}

test("reduced motion moves nothing", async () => {
  await visit({ still: true }, async (page) => {
    const moving = await page.evaluate(() => {
      const styles = [...document.querySelectorAll("*")].map((element) => getComputedStyle(element));
      return styles.filter(
        (style) => style.transitionDuration !== "0s" || style.animationName !== "none" || style.scrollBehavior === "smooth",
      ).length;
    });
    assert.equal(moving, 0);
  });
});
