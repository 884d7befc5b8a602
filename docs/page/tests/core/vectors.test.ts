import assert from "node:assert/strict";
import { test } from "node:test";

import * as core from "../../src/core/index.ts";
import { differences, VECTORS } from "./vectors.ts";

test(`the page computes what the engine computes, in ${VECTORS.length} cases`, () => {
  assert.ok(VECTORS.length >= 280);
  const wrong = VECTORS.flatMap((vector) => differences(core, vector).map((difference) => `${vector.name}: ${difference}`));
  assert.deepEqual(wrong, []);
});

test("the cases hold every mode, both dimensions and every problem", () => {
  const kinds = new Set(VECTORS.map(({ mode, dims, expected }) => `${mode} ${dims} ${"problem" in expected ? expected.problem : "fits"}`));
  for (const mode of ["conv", "conv_transpose", "pool"])
    for (const dims of [1, 2]) assert.ok(kinds.has(`${mode} ${dims} fits`), `${mode} ${dims}`);
  for (const problem of ["window", "output_padding", "empty", "pool_padding", "padding_only"]) {
    assert.ok(
      [...kinds].some((kind) => kind.endsWith(problem)),
      problem,
    );
  }
});
