import { h } from "./dom.ts";

/** A card with a heading and a sentence on what it shows. */
export function section(id: string, heading: string, lead: HTMLElement | null, ...children: (Node | string | null)[]): HTMLElement {
  return h("section", { id, class: "card", "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, heading), lead, ...children);
}

export function lead(): HTMLParagraphElement {
  return h("p", { class: "lead" });
}
