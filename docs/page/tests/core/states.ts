import { LIMITS } from "../../src/core/index.ts";
import { change, DEFAULT, type Axis, type Settings } from "../../src/core/index.ts";

/** Numbers that look random and are the same every time (Park and Miller's generator). */
export function draws(seed: number): (least: number, most: number) => number {
  let state = (seed * 48271 + 12345) % 2147483647 || 1;
  return (least, most) => {
    state = (state * 48271) % 2147483647;
    return least + (state % (most - least + 1));
  };
}

/** Any state that the controls can reach, whether it can be carried out or not. */
export function anyState(seed: number): Settings {
  const draw = draws(seed);
  const axis = (): Axis => ({
    size: draw(...LIMITS.size),
    kernel: draw(...LIMITS.kernel),
    stride: draw(...LIMITS.stride),
    padding: draw(...LIMITS.padding),
    outputPadding: draw(...LIMITS.outputPadding),
    dilation: draw(...LIMITS.dilation),
  });
  const changed = change(DEFAULT, {
    mode: (["conv", "conv_transpose", "pool"] as const)[draw(0, 2)]!,
    dims: draw(1, 2) as 1 | 2,
    linked: draw(0, 1) === 1,
    ceilMode: draw(0, 1) === 1,
    probe: draw(...LIMITS.probe),
    columns: axis(),
    ...(draw(0, 1) ? { rows: axis() } : {}),
  });
  const numbers = (row: number[]): number[] => row.map(() => draw(-9, 9) * (draw(0, 9) ? 1 : 111));
  return { ...changed, kernel: changed.kernel.map(numbers), input: changed.input.map(numbers) };
}
