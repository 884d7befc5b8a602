import assert from "node:assert/strict";
import { test } from "node:test";

import * as core from "../../src/core/index.ts";
import { differences, VECTORS } from "./vectors.ts";

test("the page computes what the engine computes, case by case", async (t) => {
  assert.ok(VECTORS.length >= 280, `only ${VECTORS.length} cases`);
  for (const vector of VECTORS) await t.test(vector.name, () => assert.deepEqual(differences(core, vector), []));
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
