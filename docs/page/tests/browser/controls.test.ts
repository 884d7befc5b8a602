import assert from "node:assert/strict";
import { test } from "node:test";

import type { Page } from "playwright-core";

import { change, check, decode, DEFAULT, LIMITS, PRESETS, run, setInput, setKernel, type Edit } from "../../src/core/index.ts";
import type { Settings } from "../../src/core/types.ts";
import { hash, numbers, numeral, visit } from "./visit.ts";

/** The settings in the address, without what is selected. */
async function settingsOf(page: Page): Promise<Settings> {
  const { settings, notice } = decode((await hash(page)).replace(/&(at|step)=[^&]*/g, ""));
  assert.equal(notice, undefined);
  return settings;
}

/** What the page shows for these settings: the output of the core, or why there is none. */
async function assertShows(page: Page, settings: Settings, what: string): Promise<void> {
  assert.deepEqual(await settingsOf(page), settings, `${what}: the address`);
  const checked = check(settings);
  assert.equal(await page.isVisible("#trouble"), !checked.ok, `${what}: the sentence`);
  assert.deepEqual(await numbers(page, "input"), settings.input, `${what}: input`);
  if (settings.mode !== "pool") assert.deepEqual(await numbers(page, "kernel"), settings.kernel, `${what}: kernel`);
  if (checked.ok) assert.deepEqual(await numbers(page, "output"), run(settings).output, `${what}: output`);
  else assert.ok(((await page.textContent("#trouble")) ?? "").endsWith(checked.sentence), `${what}: ${checked.sentence}`);
  for (const [name, value] of [["mode", settings.mode] as const, ["dims", settings.dims] as const])
    assert.equal(await page.getAttribute(`#${name} input:checked`, "value"), String(value), `${what}: ${name}`);
}

/** Whatever can be operated, by a name that lasts. */
async function operable(page: Page): Promise<string[]> {
  return page.evaluate(() => {
    const name = (element: Element): string => {
      if (element instanceof HTMLInputElement && element.type === "radio") return `${element.name}=${element.value}`;
      const own = element.id || element.getAttribute("data-preset");
      if (own) return own;
      const fill = element.getAttribute("data-fill");
      if (fill) return `${element.closest("fieldset")!.id}=${fill}`;
      const grid = element.closest("table[role=grid]");
      if (grid) return `grid ${grid.id.replace(/\d+$/, "")}`;
      if (element.closest(".jump")) return `jump ${element.getAttribute("href")}`;
      return `${element.tagName.toLowerCase()} ${element.textContent}`;
    };
    const all = document.querySelectorAll("#app :is(button, input, select, summary, a, [role=grid] td[tabindex='0'])");
    return [...new Set([...all].map(name))];
  });
}

const PARAMETERS = ["size", "kernel", "stride", "padding", "outputPadding", "dilation"] as const;
const pick = (page: Page, name: string, value: string | number) => page.click(`#${name} label:has(input[value="${value}"])`);

test("every control does what it says, and none is left out", async () => {
  await visit({ still: true }, async (page) => {
    const used = new Set<string>();
    let settings = DEFAULT;
    const edit = async (edit: Edit, what: string) => {
      settings = change(settings, edit);
      await assertShows(page, settings, what);
    };
    await assertShows(page, DEFAULT, "at first");

    for (const dims of [2, 1, 2] as const) {
      await pick(page, "dims", dims);
      used.add(`dims=${dims}`);
      await edit({ dims }, `dims ${dims}`);
    }
    assert.equal(await page.isVisible("#axis-rows"), false);
    for (const linked of [false, true, false]) {
      await page.click("#linked");
      await edit({ linked }, `linked ${linked}`);
      assert.equal(await page.isVisible("#axis-rows"), !linked);
    }
    used.add("linked");
    for (const mode of ["conv", "pool", "conv_transpose"] as const) {
      await pick(page, "mode", mode);
      used.add(`mode=${mode}`);
      await edit({ mode }, mode);
    }
    for (const side of ["columns", "rows"] as const) {
      for (const parameter of PARAMETERS) {
        const [low, high] = LIMITS[parameter];
        const before = settings[side][parameter];
        for (let value = low; value <= high; value++) {
          await pick(page, `${side}-${parameter}`, value);
          used.add(`${side}-${parameter}=${value}`);
          await edit({ [side]: { [parameter]: value } }, `${side} ${parameter} ${value}`);
        }
        await pick(page, `${side}-${parameter}`, before);
        await edit({ [side]: { [parameter]: before } }, `${side} ${parameter} as before`);
      }
    }

    for (const [grid, fills] of [
      ["input", ["ones", "count", "impulse"]],
      ["kernel", ["ones", "count", "triangle"]],
    ] as const) {
      const { length } = settings[grid].flat();
      for (const fill of fills) {
        await page.click(`#fill-${grid} [data-fill=${fill}]`);
        used.add(`fill-${grid}=${fill}`);
        settings = await settingsOf(page);
        const flat = settings[grid].flat();
        assert.equal(flat.length, length);
        if (fill === "ones") assert.ok(flat.every((value) => value === 1));
        if (fill === "count")
          assert.deepEqual(
            flat,
            [...flat.keys()].map((index) => index + 1),
          );
        if (fill === "impulse") assert.deepEqual([...flat].sort(), [...Array(length - 1).fill(0), 1]);
        if (fill === "triangle") assert.deepEqual(settings[grid], [...settings[grid]].reverse());
        await assertShows(page, settings, `${grid} ${fill}`);
      }
    }

    await page.click('#input td[data-at="1,2"]');
    assert.equal(await page.inputValue("#input-value"), String(settings.input[1]![2]));
    await page.fill("#input-value", "-7");
    settings = setInput(settings, [1, 2], -7);
    await assertShows(page, settings, "a number of the input");
    await page.fill("#input-value", "");
    await page.locator("#input-value").blur();
    assert.equal(await page.inputValue("#input-value"), "-7");
    await page.click('#kernel td[data-at="0,1"]');
    await page.fill("#kernel-value", "5000");
    settings = setKernel(settings, [0, 1], LIMITS.value[1]);
    await assertShows(page, settings, "a number of the kernel, too large");
    used.add("input-value").add("kernel-value").add("grid input").add("grid kernel");

    await page.fill("#probe", "42");
    await edit({ probe: 42 }, "probe");
    await page.click("#probe-next");
    await edit({ probe: 43 }, "another probe");
    const [left, right] = ((await page.textContent("#inner-equal")) ?? "").split(" = ").map(numeral);
    const result = run(settings);
    assert.deepEqual([left, right], [result.inner.left, result.inner.right]);
    used.add("probe").add("probe-next");

    await page.click("#grids summary");
    const sums = result.output.flat().length; // drawn when the browser tells that the details were opened, after the click
    await page.waitForFunction((count) => document.querySelectorAll("#sums tr").length === count, sums);
    await page.click("#sums tr:nth-child(3)");
    assert.match(await hash(page), /&at=output,0,2/);
    used.add("summary " + (await page.textContent("#grids summary")));

    await page.fill("#entry-row", "2");
    await page.fill("#entry-column", "7");
    assert.match(await hash(page), /&at=entry,2,7/);
    await page.fill("#entry-row", "99999");
    assert.match(await hash(page), /&at=entry,2,7/);
    used.add("entry-row").add("entry-column");

    for (const id of ["step-on", "step-back", "step-last", "step-first", "step-play", "step"]) used.add(id); // stepper.test.ts
    for (const link of await page.$$eval(".jump a", (all) => all.map((a) => a.getAttribute("href")!))) {
      await page.click(`.jump a[href="${link}"]`);
      assert.equal(await page.evaluate(() => document.activeElement?.id), `${link.slice(1)}-title`);
      assert.equal(await page.locator(link).evaluate((section) => section.getBoundingClientRect().top < innerHeight), true);
      used.add(`jump ${link}`);
    }
    await assertShows(page, settings, "after the links");

    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    for (const library of ["minidcnn", "pytorch"] as const) {
      await page.click(`#code-${library}-copy`);
      await page.waitForFunction((id) => document.getElementById(id)?.textContent === "Copied", `code-${library}-copy`);
      assert.equal(await page.evaluate(() => navigator.clipboard.readText()), result.calls[library]);
      used.add(`code-${library}-copy`);
    }
    await page.click("#share");
    await page.waitForFunction(() => document.getElementById("share")?.textContent === "Copied");
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), page.url());
    used.add("share");

    await page.click("#clear");
    assert.doesNotMatch(await hash(page), /&at=/);
    used.add("clear");

    await pick(page, "mode", "pool");
    await edit({ mode: "pool" }, "pool");
    for (const ceilMode of [true, false]) {
      await page.click("#ceil");
      await edit({ ceilMode }, `ceil ${ceilMode}`);
    }
    used.add("ceil");

    await page.click("#reset");
    await assertShows(page, DEFAULT, "start again");
    used.add("reset");
    for (const preset of PRESETS) used.add(preset.id); // below
    const views = await operable(page);
    const walked = views.filter((name) => name.startsWith("grid ")); // selection.test.ts and keyboard.test.ts
    for (const name of [...walked, ...views.filter((name) => name.startsWith("summary ")), "jump #products"]) used.add(name);
    assert.deepEqual(
      views.filter((name) => !used.has(name)),
      [],
      "controls that no line above uses",
    );
  });
});

test("every preset opens, says what to look at, and comes back from its address", async () => {
  await visit({}, async (page) => {
    assert.equal(await page.locator("[data-preset]").count(), PRESETS.length);
    for (const preset of PRESETS) {
      await page.click(`[data-preset="${preset.id}"]`);
      await assertShows(page, preset.settings, preset.id);
      assert.equal(await page.textContent("#preset-note"), preset.note);
      assert.deepEqual(
        await page.$$eval('[data-preset][aria-pressed="true"]', (all) => all.map((button) => button.getAttribute("data-preset"))),
        [preset.id],
      );
    }
    await page.click("[data-preset=digits]");
    await pick(page, "columns-stride", 3);
    assert.equal(await page.locator('[data-preset][aria-pressed="true"]').count(), 0);
  });
});

test("settings that do not fit keep the controls, explain themselves, and can be mended", async () => {
  await visit({}, async (page) => {
    await pick(page, "mode", "conv");
    await pick(page, "columns-size", 2);
    const settings = change(DEFAULT, { mode: "conv", columns: { size: 2 } });
    await assertShows(page, settings, "too small");
    assert.match((await page.textContent("#trouble")) ?? "", /fit/);
    await page.click('#input td[data-at="0,1"]');
    await page.keyboard.press("9");
    await assertShows(page, setInput(settings, [0, 1], 9), "edited meanwhile");
    await pick(page, "columns-padding", 1);
    await assertShows(page, change(setInput(settings, [0, 1], 9), { columns: { padding: 1 } }), "mended");
    assert.equal(await page.isVisible("#matrix"), true);
  });
});

test("output_padding is off where it means nothing", async () => {
  await visit({}, async (page) => {
    const off = () => page.locator("#columns-outputPadding input").first().isDisabled();
    assert.equal(await off(), false);
    await pick(page, "mode", "conv");
    assert.equal(await off(), true);
    await pick(page, "mode", "pool");
    assert.equal(await page.isVisible("#columns-outputPadding"), false);
    assert.equal(await page.isVisible("#ceil"), true);
  });
});
