// The server's operation log as it grows, read through whichever device is online.

import { brief, clock, element } from "./dom.js";

const SHOWN_MAX = 200;
const READS_MAX = 50;
// Of what an author had not seen, so many spans are named.
const UNSEEN_MAX = 6;
const TITLE_MAX = 24;

export class Log {
  #entries = [];
  #titles = new Map();
  #reading = null;
  #epoch = null;
  #asked = false;

  constructor(section, nameOf) {
    const [empty, unread] = section.querySelectorAll(".empty");
    Object.assign(this, { list: section.querySelector("ol"), empty, unread, nameOf });
  }

  // Whether any device could read it.
  show(online) {
    const empty = this.#entries.length === 0;
    this.empty.hidden = !empty || !online;
    this.unread.hidden = !empty || online;
  }

  // Reads on to the head; asked meanwhile, once more.
  async read(device) {
    this.#asked = true;
    this.#reading ??= this.#readOn(device).finally(() => {
      this.#reading = null;
    });
    return this.#reading;
  }

  async #readOn(device) {
    for (let i = 0; i < READS_MAX && this.#asked; i += 1) {
      const after = this.#entries.at(-1)?.position ?? Math.max(0, device.cursor - SHOWN_MAX);
      const { epoch, head, changes } = await device.log(after);
      // A server that was restored: what was read may be of a history that is lost.
      const other = this.#epoch !== null && epoch !== this.#epoch;
      this.#epoch = epoch;
      if (other) this.#forget();
      else this.#take(changes);
      this.#asked = other || (this.#entries.at(-1)?.position ?? after) < head;
    }
  }

  #forget() {
    this.#entries = [];
    this.list.replaceChildren();
  }

  #take(changes) {
    for (const change of changes) {
      this.#entries.push(change);
      this.list.prepend(this.#entry(change));
    }
    this.#entries = this.#entries.slice(-SHOWN_MAX);
    while (this.list.children.length > SHOWN_MAX) this.list.lastElementChild.remove();
    this.show(true);
  }

  #entry(change) {
    const entry = element("li", {}, element("span", { className: "position", text: `#${change.position}` }));
    entry.append(dot(change.device, change.counter, this.nameOf));
    const when = "When it was edited, by the device’s clock";
    entry.append(element("time", { text: clock(change.at), title: when }));
    entry.append(operations(change, this.#titles));
    entry.append(this.#seen(change));
    if (change.conflicts.length) {
      entry.classList.add("met");
      const fields = [...new Set(change.conflicts.map(({ field }) => field))].join(", ");
      entry.append(element("p", { className: "badge", text: `in conflict: ${fields}` }));
    }
    return entry;
  }

  #seen({ context, position, device }) {
    const clock = context.clock ?? {};
    const unseen = this.#entries.filter(
      (other) =>
        other.position > context.cursor && other.position < position &&
        other.device !== device && other.counter > (clock[other.device] ?? 0),
    );
    const line = element("p", { className: "seen", text: seenUpTo(context, "had") });
    line.title = `Its context: ${JSON.stringify(context)}`;
    if (!unseen.length) return line;
    line.append(element("b", { text: `, not ${spans(unseen.map((other) => other.position))}` }));
    return line;
  }
}

// Ascending positions as people write them: #5 to #7, #9.
function spans(positions) {
  const found = [];
  for (const position of positions) {
    const last = found.at(-1);
    if (last?.[1] === position - 1) last[1] = position;
    else found.push([position, position]);
  }
  const named = found.map(([from, to]) => (from === to ? `#${from}` : `#${from} to #${to}`));
  return named.slice(0, UNSEEN_MAX).join(", ") + (named.length > UNSEEN_MAX ? ", …" : "");
}

export function seenUpTo({ cursor }, has) {
  return cursor ? `${has} seen all up to #${cursor}` : `${has} seen nothing yet`;
}

// The name of a change for ever: its device and its counter.
export function dot(device, counter, nameOf) {
  const name = nameOf(device);
  const title = `The dot (${device}, ${counter})`;
  const made = element("span", { className: "dot", text: `${name}·${counter}`, title });
  made.dataset.device = name;
  return made;
}

// What records are called: brief titles by key.
export function titlesOf(records) {
  const titled = [...records].filter(([, { fields }]) => "title" in fields);
  return new Map(titled.map(([key, { fields }]) => [key, brief(fields.title, TITLE_MAX)]));
}

// What the change does, an operation a line. `titles` remembers what records are called.
export function operations(change, titles = new Map()) {
  const lines = change.ops.map((op) => {
    const key = JSON.stringify([op.collection, op.id]);
    const name = titles.get(key) ?? (op.new ? "new" : `${op.collection}/${op.id.slice(0, 8)}`);
    if (op.op === "put" && "title" in op.fields) titles.set(key, brief(op.fields.title, TITLE_MAX));
    return element("code", { text: `${op.op} ${name} ${told(op)}`.trim(), title: JSON.stringify(op) });
  });
  return element("p", { className: "ops" }, ...lines);
}

function told(op) {
  switch (op.op) {
    case "put":
      return Object.entries(op.fields).map(([field, value]) => `${field} = ${brief(value, 40)}`).join(", ");
    case "increment":
      return `${op.field} ${op.by < 0 ? "−" : "+"} ${Math.abs(op.by)}`;
    case "add":
      return `${op.field} + ${op.values.map((value) => brief(value, 24)).join(", ")}`;
    case "remove":
      return `${op.field} − ${op.values.map((value) => brief(value, 24)).join(", ")}`;
    case "edit":
      return `${op.field}: ${Math.floor((op.update.length * 3) / 4)} bytes of Yjs`;
    default:
      return "";
  }
}
