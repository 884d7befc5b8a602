import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";

import type * as Core from "../../src/core/index.ts";
import { differences, VECTORS, type Vector } from "./vectors.ts";

/** The mistakes that people make: each is made in a copy of the compiled arithmetic, and the engine's numbers must show it. */
const PLANTED: { mistake: string; file: string; from: string; to: string; shows: string }[] = [
  { mistake: "zero insertion without the flip", file: "zero-insertion.js", from: "flipped(kernel)", to: "kernel", shows: "zero insertion" },
  {
    mistake: "zero insertion with output_padding in front",
    file: "zero-insertion.js",
    from: "[whole, whole + line.outputPadding]",
    to: "[whole + line.outputPadding, whole]",
    shows: "zero insertion",
  },
  {
    mistake: "zero insertion padded by p",
    file: "zero-insertion.js",
    from: "line.span - 1 - line.padding",
    to: "line.padding",
    shows: "zero insertion",
  },
  {
    mistake: "zero insertion with s zeros between neighbours",
    file: "zero-insertion.js",
    from: "if (u % rows.stride || v % columns.stride)",
    to: "if (u % (rows.stride + 1) || v % columns.stride)",
    shows: "zero insertion",
  },
  {
    mistake: "zero insertion that forgets dilation",
    file: "zero-insertion.js",
    from: "u + a * rows.dilation",
    to: "u + a",
    shows: "zero insertion",
  },
  {
    mistake: "scatter that overwrites",
    file: "grid.js",
    from: "values[row][column] += amount",
    to: "values[row][column] = amount",
    shows: "output",
  },
  {
    mistake: "a convolution that flips",
    file: "convolve.js",
    from: "sumOf(convTerms([i, j], large, kernel, plane))",
    to: "sumOf(convTerms([i, j], large, kernel.toReversed().map((r) => r.toReversed()), plane))",
    shows: "output",
  },
  {
    mistake: "output_padding left out",
    file: "geometry.js",
    from: "spanOf(axis) + axis.outputPadding",
    to: "spanOf(axis)",
    shows: "output",
  },
  {
    mistake: "padding that pads instead of cropping",
    file: "geometry.js",
    from: "a * line.dilation - line.padding",
    to: "a * line.dilation + line.padding",
    shows: "output",
  },
  { mistake: "a size that is rounded up", file: "geometry.js", from: "Math.floor((axis.size", to: "Math.ceil((axis.size", shows: "output" },
  {
    mistake: "a span of d k",
    file: "geometry.js",
    from: "axis.dilation * (axis.kernel - 1) + 1",
    to: "axis.dilation * axis.kernel",
    shows: "output",
  },
  {
    mistake: "rows and columns exchanged in the matrix",
    file: "matrix.js",
    from: "u * columns.large + v] = at",
    to: "v * rows.large + u] = at",
    shows: "matrix",
  },
  {
    mistake: "the matrix taken for its transpose",
    file: "run.js",
    from: "multiply(matrix.transpose, input",
    to: "multiply(matrix.entries, input",
    shows: "matrix times input",
  },
  {
    mistake: "the kernel of the matrix turned round",
    file: "matrix.js",
    from: "at(kernel, a, b)",
    to: "at(kernel, rows.kernel - 1 - a, columns.kernel - 1 - b)",
    shows: "matrix",
  },
  {
    mistake: "phases counted from the cropped image",
    file: "phases.js",
    from: "(u + rows.padding) % rows.stride",
    to: "u % rows.stride",
    shows: "phases",
  },
  {
    mistake: "phases that forget dilation",
    file: "geometry.js",
    from: "(a * line.dilation) % line.stride",
    to: "a % line.stride",
    shows: "phase",
  },
  {
    mistake: "constant overlap wherever the stride divides the kernel",
    file: "overlap.js",
    from: " && gcd(stride, dilation) === 1",
    to: "",
    shows: "interior",
  },
  {
    mistake: "constant overlap where stride and dilation are coprime",
    file: "overlap.js",
    from: "kernel % stride === 0 && gcd(stride, dilation)",
    to: "gcd(stride, dilation)",
    shows: "interior",
  },
  {
    mistake: "an interior where the image is too small for one",
    file: "overlap.js",
    from: "even && counts.flat().includes(most)",
    to: "even",
    shows: "interior",
  },
  { mistake: "overlap of one axis only", file: "overlap.js", from: "down[u] * along[v]", to: "along[v]", shows: "overlap" },
  {
    mistake: "columns by pixel instead of by window",
    file: "im2col.js",
    from: "i * rows.stride + a * rows.dilation",
    to: "i + a * rows.dilation",
    shows: "output of the steps",
  },
  {
    mistake: "col2im that is cropped at the end",
    file: "im2col.js",
    from: "top: rows.padding",
    to: "top: 0",
    shows: "output of the steps",
  },
  {
    mistake: "a product that skips the last tap",
    file: "stepper.js",
    from: "sum + weight * columns[tap][k]",
    to: "sum + (tap ? weight : 0) * columns[tap][k]",
    shows: "output of the steps",
  },
  {
    mistake: "the gradient's other side",
    file: "run.js",
    from: "innerOf(large, small, cx, cty",
    to: "innerOf(large, small, cty, cx",
    shows: "back",
  },
  {
    mistake: "pooling with the last of equal maxima",
    file: "pool.js",
    from: "[winner, ...ties] = cells.filter(",
    to: "[winner, ...ties] = cells.toReversed().filter(",
    shows: "indices",
  },
  { mistake: "pooling that pads with zeros", file: "pool.js", from: ".filter(([u, v]) => inside(input, u, v))", to: "", shows: "output" },
  {
    mistake: "indices counted by columns",
    file: "pool.js",
    from: "winner[0] * columns.size + winner[1]",
    to: "winner[1] * rows.size + winner[0]",
    shows: "indices",
  },
  {
    mistake: "a last window that starts behind the image",
    file: "pool.js",
    from: " && whole * stride < size + padding",
    to: "",
    shows: "problem",
  },
  { mistake: "ceil_mode ignored", file: "pool.js", from: "? whole + 1", to: "? whole", shows: "output" },
  {
    mistake: "unpooling that overwrites",
    file: "run.js",
    from: "unpooled: back(output)",
    to: "unpooled: overwriteAt(output, indices, rows.size, columns.size)",
    shows: "unpooled",
  },
  {
    mistake: "output_padding below the stride only",
    file: "check.js",
    from: "Math.max(axis.stride, axis.dilation)",
    to: "axis.stride",
    shows: "problem",
  },
  { mistake: "pool padding up to the window", file: "check.js", from: "2 * axis.padding > ", to: "axis.padding > ", shows: "problem" },
];

const folder = mkdtempSync(join(tmpdir(), "planted-"));
after(() => rmSync(folder, { recursive: true }));

for (const [i, { mistake, file, from, to, shows }] of PLANTED.entries()) {
  test(`the engine's numbers show: ${mistake}`, async () => {
    const copy = join(folder, String(i));
    cpSync("compiled/src/core", copy, { recursive: true });
    const code = readFileSync(join(copy, file), "utf8");
    assert.equal(code.split(from).length, 2, `${file} must hold "${from}" once`);
    writeFileSync(
      join(copy, file),
      code.replace(from, () => to),
    );
    writeFileSync(join(copy, "package.json"), '{ "type": "module" }');
    const core = (await import(pathToFileURL(join(copy, "index.js")).href)) as typeof Core;
    const seen: string[] = [];
    for (const vector of VECTORS) {
      seen.push(...differencesOrError(core, vector));
      if (seen.some((difference) => difference.startsWith(shows))) return;
    }
    assert.fail(`not seen in "${shows}", only in: ${seen.slice(0, 5).join("; ") || "nothing"}`);
  });
}

function differencesOrError(core: typeof Core, vector: Vector): string[] {
  try {
    return differences(core, vector);
  } catch (error) {
    return [`thrown: ${String(error)}`];
  }
}

test("without a mistake, a copy agrees", async () => {
  const copy = join(folder, "none");
  cpSync("compiled/src/core", copy, { recursive: true });
  writeFileSync(join(copy, "package.json"), '{ "type": "module" }');
  const core = (await import(pathToFileURL(join(copy, "index.js")).href)) as typeof Core;
  assert.deepEqual(
    VECTORS.flatMap((vector) => differences(core, vector)),
    [],
  );
});
