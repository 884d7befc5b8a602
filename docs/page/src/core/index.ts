export { check } from "./check.ts";
export { change, setInput, setKernel, type Edit } from "./edit.ts";
export { LIMITS } from "./limits.ts";
export { DEFAULT, PRESETS } from "./presets.ts";
export { related } from "./related.ts";
export { run } from "./run.ts";
export { decode, encode } from "./state.ts";
export type * from "./types.ts";
