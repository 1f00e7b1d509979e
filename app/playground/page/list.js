// The shared list of a pane: registers (title, done), a counter (votes), a set (tags).

import { brief, clock, cloned, element } from "./dom.js";
import { keyOf } from "./records.js";

export const ITEMS = "items";
const NUMBERS = { 2: "Two", 3: "Three" };

export class List {
  #rows = new Map();

  // `act(promise)` tells the visitor what went wrong with an edit.
  constructor(pane, device, nameOf, act) {
    Object.assign(this, { device, nameOf, act });
    this.list = pane.querySelector(".items");
    this.empty = pane.querySelector(".empty");
    const form = pane.querySelector(".add");
    this.title = form.elements.title;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const title = form.elements.title.value.trim();
      if (title) act(device.edit([this.#put(newId(), { title, done: false }, true)]));
      form.reset();
    });
  }

  show() {
    const items = [...this.device.view.values()].filter(({ collection }) => collection === ITEMS);
    items.sort((one, other) => (one.id < other.id ? -1 : 1));
    const rows = items.map((record) => this.#row(record));
    for (const [key, row] of this.#rows) {
      if (!this.device.view.has(key)) {
        // Who works by the keyboard is not thrown back to the top of the page.
        const focused = row.node.contains(document.activeElement);
        row.node.remove();
        if (focused) this.title.focus();
        this.#rows.delete(key);
      }
    }
    // Only what is out of place moves: a row that is moved would lose the focus.
    rows.forEach((row, i) => {
      const there = this.list.children[i];
      if (there !== row.node) this.list.insertBefore(row.node, there ?? null);
    });
    this.empty.hidden = items.length > 0;
  }

  #row(record) {
    const key = keyOf(record);
    if (!this.#rows.has(key)) this.#rows.set(key, new Row(this, record.id));
    const row = this.#rows.get(key);
    row.show(record);
    return row;
  }

  #put(id, fields, fresh) {
    return { op: "put", collection: ITEMS, id, ...(fresh ? { new: true } : {}), fields };
  }

  put(id, fields, context) {
    this.act(this.device.edit([this.#put(id, fields)], context));
  }

  edit(op, id, rest) {
    this.act(this.device.edit([{ op, collection: ITEMS, id, ...rest }]));
  }
}

class Row {
  // What the device had seen when the visitor began to type: what came since, nobody has read.
  #began = null;

  constructor(list, id) {
    Object.assign(this, { list, id, node: cloned("item") });
    const find = (selector) => this.node.querySelector(selector);
    [this.done, this.title] = [find("[type=checkbox]"), find(".title")];
    [this.votes, this.tags, this.conflicts] = [find("output"), find(".tags"), find(".conflicts")];
    this.done.addEventListener("change", () => list.put(id, { done: this.done.checked }));
    this.#listenToTitle();
    const [less, more] = this.node.querySelectorAll(".votes button");
    less.addEventListener("click", () => list.edit("increment", id, { field: "votes", by: -1 }));
    more.addEventListener("click", () => list.edit("increment", id, { field: "votes", by: 1 }));
    find(".delete").addEventListener("click", () => list.edit("delete", id));
    find(".tag").addEventListener("submit", (event) => this.#addTag(event));
  }

  show(record) {
    const { title = "", done = false, votes = 0, tags = [] } = record.fields;
    this.record = record;
    this.node.setAttribute("aria-label", title);
    this.done.checked = done === true;
    this.node.classList.toggle("done", done === true);
    if (this.#began === null) this.title.value = asText(title);
    this.votes.textContent = String(votes);
    this.#replace(this.tags, JSON.stringify(tags), () => tags.map((tag) => this.#tag(tag)));
    const held = Object.entries(record.conflicts);
    this.#replace(this.conflicts, JSON.stringify(held), () => held.map((one) => this.#conflict(...one)));
  }

  // New children, where what they show has changed: else a focus in them would be lost.
  #replace(node, shows, make) {
    if (node.dataset.shows === shows) return;
    node.dataset.shows = shows;
    const focused = [...node.querySelectorAll("button")].indexOf(document.activeElement);
    node.replaceChildren(...make());
    if (focused >= 0) (node.querySelectorAll("button")[focused] ?? this.title).focus();
  }

  #listenToTitle() {
    this.title.addEventListener("input", () => {
      this.#began ??= this.list.device.context();
    });
    this.title.addEventListener("change", () => this.#commit());
    this.title.addEventListener("blur", () => this.#commit());
    this.title.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#drop();
      if (event.key === "Enter" && !event.isComposing) this.#commit();
    });
  }

  #commit() {
    const [title, began] = [this.title.value, this.#began];
    this.#began = null;
    if (began && title !== this.record.fields.title) this.list.put(this.id, { title }, began);
    // What is shown may be older than what was just kept.
    else this.show(this.list.device.view.get(keyOf(this.record)) ?? this.record);
  }

  #drop() {
    this.#began = null;
    this.show(this.record);
  }

  #addTag(event) {
    event.preventDefault();
    const input = event.target.elements.tag;
    const tag = input.value.trim();
    if (tag) this.list.edit("add", this.id, { field: "tags", values: [tag] });
    input.value = "";
  }

  #tag(tag) {
    const shown = asText(tag);
    const label = `Remove the tag ${shown}`;
    const button = element("button", { type: "button", text: "✕", "aria-label": label });
    const gone = { field: "tags", values: [tag] };
    button.addEventListener("click", () => this.list.edit("remove", this.id, gone));
    return element("li", {}, element("span", { text: shown }), button);
  }

  #conflict(field, sides) {
    const label = `Conflict in ${field}`;
    const many = NUMBERS[sides.length] ?? sides.length;
    const text = `${many} wrote “${field}” without having seen each other. Which one stays?`;
    return element(
      "div",
      { className: "conflict", role: "group", "aria-label": label },
      element("p", { text }),
      ...sides.map((side) => this.#side(field, side)),
    );
  }

  #side(field, { value, own, device, at }) {
    const from = own ? "this device, not sent yet" : `${this.list.nameOf(device)}, ${clock(at)}`;
    const button = element("button", { type: "button", className: "side" });
    button.append(element("b", { text: brief(value) }), element("small", { text: from }));
    button.addEventListener("click", () => this.list.put(this.id, { [field]: value }));
    return button;
  }
}

// Others may have written what is no text.
const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

// A UUIDv7 (RFC 9562): sorted by id is sorted by time.
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const now = Date.now();
  for (let i = 0; i < 6; i += 1) bytes[i] = Math.floor(now / 2 ** (8 * (5 - i))) % 256;
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
