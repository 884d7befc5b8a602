/** The controls. They show the settings, whether or not these fit together, and change nothing but through `edit`. */

import type { Axis, Limits, Preset, Settings } from "../core/types.ts";
import { h } from "./dom.ts";

export type Parameter = keyof Axis;
type Side = "rows" | "columns";

export interface Actions {
  mode(mode: Settings["mode"]): void;
  dims(dims: 1 | 2): void;
  linked(linked: boolean): void;
  axis(side: Side, parameter: Parameter, value: number): void;
  ceilMode(ceilMode: boolean): void;
  fillKernel(fill: Fill): void;
  fillInput(fill: Fill): void;
  share(): Promise<boolean>;
  reset(): void;
}

export type Fill = "ones" | "count" | "impulse" | "triangle";

const PARAMETERS: readonly [Parameter, string, string][] = [
  ["size", "input size", ""],
  ["kernel", "kernel", "k"],
  ["stride", "stride", "s"],
  ["padding", "padding", "p"],
  ["outputPadding", "output_padding", ""],
  ["dilation", "dilation", "d"],
];

const MODES = [
  ["conv", "Convolution"],
  ["conv_transpose", "Transposed convolution"],
  ["pool", "Max\u2011pool"],
] as const;

const DIMENSIONS = [
  ["1", "1-D"],
  ["2", "2-D"],
] as const;

const KERNEL_FILLS: readonly [Fill, string][] = [
  ["ones", "all 1"],
  ["count", "1, 2, 3"],
  ["triangle", "1, 2, 1"],
];

const INPUT_FILLS: readonly [Fill, string][] = [
  ["ones", "all 1"],
  ["count", "1, 2, 3"],
  ["impulse", "one 1"],
];

export class Controls {
  readonly element: HTMLFormElement;
  private readonly mode: Segments;
  private readonly dims: Segments;
  private readonly linked: HTMLInputElement;
  private readonly ceil: HTMLInputElement;
  private readonly axes: Record<Side, { box: HTMLElement; heading: HTMLElement; fields: Map<Parameter, Segments> }>;
  private readonly linkedLine: HTMLElement;
  private readonly ceilLine: HTMLElement;
  private readonly kernelFills: HTMLElement;

  constructor(limits: Limits, actions: Actions) {
    this.mode = new Segments("mode", "Operation", MODES, (value) => actions.mode(value as Settings["mode"]));
    this.dims = new Segments("dims", "Dimensions", DIMENSIONS, (value) => actions.dims(value === "1" ? 1 : 2));
    this.linked = h("input", { type: "checkbox", id: "linked", onchange: () => actions.linked(this.linked.checked) });
    this.ceil = h("input", { type: "checkbox", id: "ceil", onchange: () => actions.ceilMode(this.ceil.checked) });
    this.linkedLine = h("label", { class: "check" }, this.linked, "rows as columns (axes linked)");
    this.ceilLine = h("label", { class: "check" }, this.ceil, "ceil_mode");
    const side = (name: Side) => {
      const fields = new Map<Parameter, Segments>();
      for (const [parameter, label, letter] of PARAMETERS) {
        const [low, high] = limits[parameter];
        const choices = Array.from({ length: high - low + 1 }, (_, i) => [String(low + i), String(low + i)] as const);
        fields.set(
          parameter,
          new Segments(
            `${name}-${parameter}`,
            label,
            choices,
            (value) => actions.axis(name, parameter, Number(value)),
            letter,
            ` of the ${name}`,
          ),
        );
      }
      const heading = h("h3", {}, name === "rows" ? "Rows" : "Columns");
      return { box: h("div", { id: `axis-${name}` }, heading, ...[...fields.values()].map((field) => field.element)), heading, fields };
    };
    this.axes = { columns: side("columns"), rows: side("rows") };
    const share = h("button", { type: "button", id: "share" }, "Copy address");
    share.addEventListener("click", () => {
      void actions.share().then((done) => {
        share.textContent = done ? "Copied" : "Copy it from the address bar";
        setTimeout(() => (share.textContent = "Copy address"), 2500);
      });
    });
    const fills = (id: string, name: string, choices: readonly [Fill, string][], action: (fill: Fill) => void) =>
      h(
        "fieldset",
        { class: "field", id },
        h("legend", {}, name),
        h(
          "div",
          { class: "buttons", style: "margin-top:0" },
          ...choices.map(([fill, label]) => h("button", { type: "button", "data-fill": fill, onclick: () => action(fill) }, label)),
        ),
      );
    this.kernelFills = fills("fill-kernel", "Fill the kernel", KERNEL_FILLS, (fill) => actions.fillKernel(fill));
    this.element = h(
      "form",
      { id: "controls", class: "card", "aria-labelledby": "controls-title", onsubmit: (event) => event.preventDefault() },
      h("h2", { id: "controls-title" }, "Settings"),
      this.mode.element,
      this.dims.element,
      this.linkedLine,
      h("div", { class: "axes" }, this.axes.columns.box, this.axes.rows.box),
      this.ceilLine,
      fills("fill-input", "Fill the input", INPUT_FILLS, (fill) => actions.fillInput(fill)),
      this.kernelFills,
      h("p", { class: "note" }, "Or type into the cells: digits, minus, Backspace."),
      h("div", { class: "buttons" }, share, h("button", { type: "button", id: "reset", onclick: () => actions.reset() }, "Start again")),
    );
  }

  show(settings: Settings): void {
    const { mode, dims, linked } = settings;
    this.mode.show(mode);
    this.dims.show(String(dims));
    this.linked.checked = linked;
    this.linkedLine.hidden = dims === 1;
    this.ceil.checked = settings.ceilMode;
    this.ceilLine.hidden = mode !== "pool";
    this.kernelFills.hidden = mode === "pool";
    for (const side of ["columns", "rows"] as const) {
      const { box, heading, fields } = this.axes[side];
      box.hidden = side === "rows" && (dims === 1 || linked);
      heading.hidden = dims === 1 || linked;
      for (const [parameter, field] of fields) {
        field.show(String(settings[side][parameter]));
        field.tell(dims === 2 && !linked);
        if (parameter === "outputPadding") {
          field.enable(mode === "conv_transpose");
          field.element.hidden = mode === "pool";
        }
      }
    }
  }
}

/** Radio buttons that look like one strip. */
class Segments {
  readonly element: HTMLFieldSetElement;
  private readonly inputs = new Map<string, HTMLInputElement>();
  private readonly of: HTMLElement; // whose, where there are two of a kind

  constructor(
    name: string,
    legend: string,
    choices: readonly (readonly [string, string])[],
    pick: (value: string) => void,
    hint = "",
    of = "",
  ) {
    this.of = h("span", { class: "visually-hidden" }, of);
    const strip = h("div", { class: "segments" });
    for (const [value, label] of choices) {
      const input = h("input", { type: "radio", name, value, onchange: () => pick(value) });
      this.inputs.set(value, input);
      strip.append(h("label", {}, input, h("span", {}, label)));
    }
    this.element = h(
      "fieldset",
      { class: "field", id: name },
      h("legend", {}, legend, hint ? h("span", { class: "hint" }, ` ${hint}`) : null, this.of),
      strip,
    );
  }

  show(value: string): void {
    for (const [each, input] of this.inputs) input.checked = each === value;
  }

  tell(whose: boolean): void {
    this.of.hidden = !whose;
  }

  enable(enabled: boolean): void {
    this.element.disabled = !enabled;
  }
}

/** Buttons for the presets, and what to look at in the one that is shown. */
export class Presets {
  readonly element: HTMLElement;
  private readonly buttons: HTMLButtonElement[];
  private readonly note = h("p", { class: "note", id: "preset-note" });

  constructor(
    private readonly presets: readonly Preset[],
    pick: (preset: Preset) => void,
  ) {
    this.buttons = presets.map((preset) =>
      h("button", { type: "button", "data-preset": preset.id, "aria-pressed": "false", onclick: () => pick(preset) }, preset.name),
    );
    this.element = h(
      "section",
      { class: "presets", "aria-labelledby": "presets-title" },
      h("h2", { id: "presets-title" }, "Start from"),
      h("div", { class: "buttons" }, ...this.buttons),
      this.note,
    );
  }

  show(current: Preset | undefined): void {
    this.presets.forEach((preset, index) => this.buttons[index]!.setAttribute("aria-pressed", String(preset === current)));
    this.note.textContent = current?.note ?? "Settings of your own. The address of this page holds them.";
  }
}
