// The shared text of a pane: a Yjs document in the field of a record, in a plain text area.
// The area always shows what the document holds; while an input method composes, what comes from
// others waits.

export const PLACE = { collection: "notes", id: "shared", field: "body" };
const KEY = JSON.stringify([PLACE.collection, PLACE.id]);
const ROOT = "text";
// Typing with shorter pauses than this is one change, while it is not sent.
const PAUSE_MS = 2000;
const TYPED = Symbol("typed here");

export class Text {
  #applied = new Set();
  #composing = false;
  #unkept = [];

  constructor(area, device, yjs, act) {
    Object.assign(this, { area, device, yjs, act });
    this.document = new yjs.Doc();
    this.text = this.document.getText(ROOT);
    device.merge = (updates) => encoded(yjs.mergeUpdates(updates.map(decoded)));
    this.document.on("update", (update, origin) => {
      if (origin === TYPED) this.#keep(update);
    });
    this.text.observe((event) => {
      if (event.transaction.origin !== TYPED) this.#render(event.delta);
    });
    this.#listen();
  }

  show() {
    if (this.#composing) return;
    for (const update of this.device.view.get(KEY)?.documents[PLACE.field] ?? []) {
      if (this.#applied.has(update)) continue;
      this.#applied.add(update);
      this.yjs.applyUpdate(this.document, decoded(update));
    }
  }

  // While a letter goes to the disk, those typed after it wait, and go together: whoever types fast
  // and leaves the page loses the last moment at most. Until then the area is busy.
  async #keep(update) {
    this.#unkept.push(update);
    if (this.area.ariaBusy === "true") return;
    this.area.ariaBusy = "true";
    while (this.#unkept.length) {
      const typed = encoded(this.yjs.mergeUpdates(this.#unkept.splice(0)));
      await this.act(this.device.type({ op: "edit", ...PLACE, update: typed }, PAUSE_MS));
    }
    this.area.ariaBusy = "false";
  }

  #listen() {
    this.area.addEventListener("input", () => this.#typed());
    this.area.addEventListener("compositionstart", () => {
      this.#composing = true;
    });
    this.area.addEventListener("compositionend", () => {
      this.#composing = false;
      this.#typed();
      this.show();
    });
  }

  #typed() {
    const [before, after] = [this.text.toString(), this.area.value];
    if (before === after) return;
    const { at, gone, come } = difference(before, after, this.area.selectionEnd);
    this.document.transact(() => {
      if (gone) this.text.delete(at, gone);
      if (come) this.text.insert(at, come);
    }, TYPED);
  }

  #render(delta) {
    const { selectionStart, selectionEnd, selectionDirection, scrollTop } = this.area;
    this.area.value = this.text.toString();
    this.area.setSelectionRange(moved(selectionStart, delta), moved(selectionEnd, delta), selectionDirection);
    this.area.scrollTop = scrollTop;
  }
}

// One stretch that was replaced: `gone` characters at `at` by the text `come`. Never half a
// surrogate pair. What stands after the caret was not typed: a blank typed before a blank is the
// first of the two, and merges as that.
export function difference(before, after, caret = after.length) {
  const most = Math.min(before.length, after.length);
  const alike = (from, to) => {
    let same = from;
    while (same < to && before.at(-1 - same) === after.at(-1 - same)) same += 1;
    return same;
  };
  let same = alike(0, Math.min(most, after.length - caret));
  let at = 0;
  while (at < most - same && before[at] === after[at]) at += 1;
  if (same === after.length - caret) same = alike(same, most - at);
  if (at > 0 && isHigh(before.charCodeAt(at - 1))) at -= 1;
  if (same > 0 && isLow(before.charCodeAt(before.length - same))) same -= 1;
  return { at, gone: before.length - at - same, come: after.slice(at, after.length - same) };
}

const isHigh = (unit) => unit >= 0xd800 && unit < 0xdc00;
const isLow = (unit) => unit >= 0xdc00 && unit < 0xe000;

// Where a place in the text is after others' changes.
function moved(place, delta) {
  let at = 0;
  for (const step of delta) {
    if (at > place) break;
    if (step.retain) at += step.retain;
    if (step.insert && at < place) place += step.insert.length;
    if (step.insert) at += step.insert.length;
    if (step.delete) place = Math.max(at, place - step.delete);
  }
  return place;
}

function encoded(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function decoded(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
