import assert from "node:assert/strict";
import { resolve } from "node:path";
import { after } from "node:test";
import { pathToFileURL } from "node:url";

import { chromium, type Browser, type Page } from "playwright-core";

import { encode } from "../../src/core/index.ts";
import type { Grid, Settings } from "../../src/core/types.ts";

/** The built page, from a disk, as a reader opens it. */
export const PAGE = pathToFileURL(resolve(process.env["PAGE"] ?? "../transposed-convolution.html")).href;

export interface Reader {
  hash?: string;
  width?: number;
  dark?: boolean;
  script?: boolean;
  still?: boolean; // prefers reduced motion
}

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

let browser: Promise<Browser> | undefined;

after(async () => {
  await (await browser)?.close();
});

/** Opens the page, lets `act` use it, and fails if it asked for anything beyond its own file or had anything to complain about. */
export async function visit(reader: Reader, act: (page: Page) => Promise<void>): Promise<void> {
  browser ??= chromium.launch({ executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium", args: FLAGS });
  const context = await (
    await browser
  ).newContext({
    viewport: { width: reader.width ?? 1200, height: 800 },
    colorScheme: reader.dark ? "dark" : "light",
    reducedMotion: reader.still ? "reduce" : "no-preference",
    javaScriptEnabled: reader.script ?? true,
  });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => complaints.push(`console ${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
  page.on("request", (request) => {
    if (request.url().split("#")[0] !== PAGE && !request.url().startsWith("data:")) complaints.push(`request: ${request.url()}`);
  });
  try {
    await page.goto(`${PAGE}${reader.hash ?? ""}`);
    await act(page);
  } finally {
    await context.close();
  }
  assert.deepEqual(complaints, []);
}

/** To another state, by the address, without loading the page again. */
export async function go(page: Page, settings: Settings, more = ""): Promise<void> {
  await page.evaluate((hash) => (location.hash = hash), `#${encode(settings)}${more}`);
  await page.waitForFunction((hash) => location.hash.startsWith(hash), `#${encode(settings)}`);
  await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => resolve(null))));
}

/** The texts of a grid, row by row. */
export async function texts(page: Page, id: string): Promise<string[][]> {
  return page.evaluate((name) => {
    const rows = [...document.querySelectorAll(`#${name} tr`)].map((row) =>
      [...row.querySelectorAll("td[data-at]")].map((cell) => cell.textContent ?? ""),
    );
    return rows.filter((row) => row.length > 0);
  }, id);
}

/** The numbers of a grid, row by row; a true minus sign is one. */
export async function numbers(page: Page, id: string): Promise<Grid> {
  return (await texts(page, id)).map((row) => row.map(numeral));
}

export function numeral(text: string): number {
  return /^\s*−?\d+\s*$/.test(text) ? Number(text.replace("−", "-")) : NaN;
}

/** The cells of a grid that carry a mark, as "row,column". */
export async function marked(page: Page, id: string, mark?: "selected" | "related"): Promise<string[]> {
  const selector = mark ? `[data-mark="${mark}"]` : "[data-mark]";
  return page.evaluate(
    (query) => [...document.querySelectorAll<HTMLElement>(query)].map((cell) => cell.dataset["at"] ?? ""),
    `#${id} td${selector}`,
  );
}

export async function hash(page: Page): Promise<string> {
  return page.evaluate(() => location.hash);
}

/** No picture of the page may be wider than the window. */
export async function assertFits(page: Page, what: string): Promise<void> {
  const [wide, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth] as const);
  assert.ok(wide <= window, `${what}: the page is ${wide} wide in a window of ${window}`);
}
