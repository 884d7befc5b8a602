/** The one number that decides whether two maps are transposes of each other. */

import type { Grid, Result } from "../core/types.ts";
import { at, factor, h, number, shape } from "./dom.ts";
import { GridView } from "./grid.ts";
import { caption } from "./view-grids.ts";
import type { Context, Marks, View } from "./marks.ts";
import { lead, section } from "./section.ts";

const WRITTEN = 12; // products written out

export class InnerView implements View {
  readonly id = "inner";
  readonly title = "⟨Cx, y⟩";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly grids: Record<"x" | "y" | "cx" | "cty", GridView>;
  private readonly left = h("p", { class: "equation", id: "inner-left" });
  private readonly right = h("p", { class: "equation", id: "inner-right" });
  private readonly equal = h("p", {}, h("span", { class: "equal", id: "inner-equal" }));
  private readonly probe: HTMLInputElement;
  private readonly probeLabel = h("span");

  constructor(context: Context, change: (probe: number) => void, limits: readonly [number, number]) {
    const small = (i: number, j: number) => context.selectSmall(i, j);
    const large = (i: number, j: number) => context.selectLarge(i, j);
    this.grids = {
      x: new GridView({ id: "inner-x", select: large }),
      cx: new GridView({ id: "inner-cx", select: small }),
      y: new GridView({ id: "inner-y", select: small }),
      cty: new GridView({ id: "inner-cty", select: large }),
    };
    const set = () => {
      const value = Math.round(Number(this.probe.value));
      if (this.probe.value.trim() !== "" && !Number.isNaN(value)) change(Math.min(limits[1], Math.max(limits[0], value)));
    };
    this.probe = h("input", { id: "probe", type: "number", min: limits[0], max: limits[1], step: 1, oninput: set });
    const another = () => change(Number(this.probe.value) >= limits[1] ? limits[0] : Number(this.probe.value) + 1);
    this.element = section(
      this.id,
      "⟨Cx, y⟩ = ⟨x, Cᵀy⟩ (T1)",
      this.lead,
      h(
        "div",
        { class: "edit" },
        h("label", {}, this.probeLabel, this.probe),
        h("button", { type: "button", id: "probe-next", onclick: another }, "Another one"),
      ),
      this.left,
      this.right,
      this.equal,
      h("div", { class: "pair" }, ...Object.values(this.grids).map((grid) => grid.element)),
    );
  }

  show(result: Result): boolean {
    const { inner, mode, settings } = result;
    const map = mode === "pool" ? "G" : "C";
    const heading = this.element.querySelector("h2")!;
    heading.textContent = `⟨${map}x, y⟩ = ⟨x, ${map}ᵀy⟩`;
    this.lead.textContent =
      `The definition of the transpose, live: take the inner product on either side of the map, and the same number comes out, whatever x and y are. ` +
      `One of the two is the input above; the other, ${inner.probe}, is picked here.`;
    this.probeLabel.textContent = `${inner.probe}, number`;
    if (Number(this.probe.value) !== settings.probe || this.probe.value === "") this.probe.value = String(settings.probe);
    const tone = (name: "x" | "y" | "cx" | "cty") => {
      const large = name === "x" || name === "cty";
      return large === (mode === "conv_transpose") ? "output" : "input";
    };
    const captions = { x: "x", y: "y", cx: `${map}x`, cty: `${map}ᵀy` };
    for (const name of ["x", "y", "cx", "cty"] as const) {
      const grid = inner[name];
      caption(this.grids[name], captions[name], name === inner.probe ? "picked here" : "");
      this.grids[name].show({
        ...shape(grid),
        text: (i, j) => number(at(grid, [i, j])),
        look: () => tone(name),
        columnHead: (j) => String(j),
        ...(settings.dims === 2 ? { rowHead: (i: number) => String(i) } : {}),
        dense: settings.dims === 2 || shape(grid).columns > 10,
      });
    }
    write(this.left, `⟨${map}x, y⟩`, inner.cx, inner.y, inner.left);
    write(this.right, `⟨x, ${map}ᵀy⟩`, inner.x, inner.cty, inner.right);
    const equal = this.equal.firstElementChild!;
    equal.textContent = `${number(inner.left)} ${inner.left === inner.right ? "=" : "≠"} ${number(inner.right)}`;
    return true;
  }

  mark(marks: Marks): void {
    this.grids.x.mark((i, j) => marks.large(i, j));
    this.grids.cty.mark((i, j) => marks.large(i, j));
    this.grids.y.mark((i, j) => marks.small(i, j));
    this.grids.cx.mark((i, j) => marks.small(i, j));
  }
}

function write(element: HTMLElement, name: string, a: Grid, b: Grid, total: number): void {
  const [left, right] = [a.flat(), b.flat()];
  const products = left.slice(0, WRITTEN).map((value, index) => `${factor(value)}·${factor(right[index]!)}`);
  const more = left.length > WRITTEN ? ` + … (${left.length} products)` : "";
  element.replaceChildren(h("b", {}, name), ` = ${products.join(" + ")}${more} = `, h("b", {}, number(total)));
}
