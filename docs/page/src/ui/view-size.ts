/** Sizes with their formula, and the same call in code. */

import type { Result } from "../core/types.ts";
import { h } from "./dom.ts";
import type { View } from "./marks.ts";
import { lead, section } from "./section.ts";

export class SizeView implements View {
  readonly id = "size";
  readonly title = "Size";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly body = h("div");

  constructor() {
    this.element = section(this.id, "The size of the output (T3, T4, T18)", this.lead, this.body);
  }

  show(result: Result): boolean {
    const { sizes, mode, settings } = result;
    const together = settings.dims === 2 && settings.linked;
    this.lead.textContent =
      mode === "conv_transpose"
        ? "Along each axis. A transposed convolution crops its padding, and output_padding takes some of that crop back on the right, or appends zeros where nothing was cropped."
        : mode === "pool" && settings.ceilMode
          ? "Along each axis. ceil_mode rounds up, so a last window may hang over the edge, if it begins inside."
          : "Along each axis. The floor forgets up to stride − 1 pixels: several sizes give the same result.";
    this.body.replaceChildren(
      ...sizes
        .filter((size) => !together || size.axis === "columns")
        .map((size) =>
          h(
            "div",
            { "data-axis": size.axis },
            sizes.length > 1 ? h("h3", {}, together ? "Columns, and rows alike" : size.axis === "rows" ? "Rows" : "Columns") : null,
            h("p", { class: "equation" }, size.formula),
            h("p", { class: "equation numbers" }, h("b", { style: "white-space: normal" }, size.numbers)),
            h("p", { class: "verdict" }, size.sentence),
          ),
        ),
    );
    return true;
  }

  mark(): void {}
}

export class CallsView implements View {
  readonly id = "calls";
  readonly title = "Code";
  readonly element: HTMLElement;
  private readonly lead = lead();
  private readonly minidcnn = new Code("minidcnn", "code-minidcnn");
  private readonly pytorch = new Code("PyTorch", "code-pytorch");

  constructor() {
    this.lead.textContent = "The same numbers, computed by a library. minidcnn's names and arguments are PyTorch's.";
    this.element = section(
      this.id,
      "The same in code",
      this.lead,
      h("div", { class: "pair" }, this.minidcnn.element, this.pytorch.element),
    );
  }

  show(result: Result): boolean {
    this.minidcnn.show(result.calls.minidcnn);
    this.pytorch.show(result.calls.pytorch);
    return true;
  }

  mark(): void {}
}

class Code {
  readonly element: HTMLElement;
  private readonly code = h("code");
  private readonly button: HTMLButtonElement;

  constructor(name: string, id: string) {
    this.button = h(
      "button",
      { type: "button", id: `${id}-copy`, "aria-label": `Copy the code for ${name}`, onclick: () => void this.copy() },
      "Copy",
    );
    this.element = h(
      "figure",
      { class: "code" },
      h("figcaption", {}, h("span", {}, name), this.button),
      h("pre", { id, tabindex: 0, role: "group", "aria-label": `Code for ${name}` }, this.code),
    );
  }

  show(text: string): void {
    this.code.textContent = text;
    this.button.textContent = "Copy";
  }

  private async copy(): Promise<void> {
    this.button.textContent = (await copied(this.code.textContent ?? "")) ? "Copied" : "Press Ctrl+C";
    if (this.button.textContent === "Copied") return;
    const range = document.createRange();
    range.selectNodeContents(this.code);
    const selection = getSelection();
    selection?.removeAllRanges();
    selection?.addRange(range);
  }
}

export async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}
