// A small offline-first device: its copy of one space, its outbox, its cursor.
// Promises: an edit stands in this browser's storage before anything is sent; a change that was
// sent is never altered; a context is taken when the edit is made; a transfer is applied whole.

import { renumbered, unknown } from "./fork.js";
import { plain } from "./live.js";
import { absorbed, done, keyOf } from "./records.js";
import { Session, ask } from "./session.js";

const SPACE = "me";
// Of a push. More wait for the next one.
const CHANGES_MAX = 200;
// A transfer that goes on for longer than this is no demo's.
const PAGES_MAX = 10_000;
const REFUSED_KEPT = 20;
// Of typing that goes into one change.
const TYPED_CHARS_MAX = 200_000;
// The updates of a document that are kept one by one, before they are merged.
const UPDATES_MAX = 32;
// `seen`: what this device had seen before it got a new id, until its first whole transfer; `former`:
// the ids that it had.
const FRESH = { cursor: 0, epoch: null, counter: 0, session: {}, refused: [], seen: null, former: [] };

export class Device extends EventTarget {
  #state;
  #records;
  #outbox;
  #view = null;
  // What is written waits for what was written before it, and so does a round.
  #writes = Promise.resolve();
  #rounds = Promise.resolve();
  // Merges updates of a document, base64 in and out; null while Yjs is not there.
  merge = null;

  static async open(name, store, account) {
    const { state, records, outbox } = await store.read();
    return new Device(name, store, account, { ...FRESH, ...state }, records, outbox);
  }

  constructor(name, store, account, state, records, outbox) {
    super();
    Object.assign(this, { name, store });
    this.#state = state;
    this.#records = new Map(records.map((record) => [keyOf(record), record]));
    this.#outbox = outbox;
    this.session = new Session(name, account, state.session, (session) =>
      this.#keep({ state: { ...this.#state, session } }),
    );
  }

  get id() {
    return this.session.device;
  }

  // Whether the id is this device's, or was.
  is(id) {
    return id === this.id || this.#state.former.includes(id);
  }

  // What no server has acknowledged.
  get pending() {
    return this.#outbox.filter((change) => !change.accepted);
  }

  // How many changes no delta has brought back yet: at 0, all that was done here is in the copy.
  get unsettled() {
    return this.#outbox.length;
  }

  // The changes that the server put aside, newest last: {counter, ops, error}.
  get refused() {
    return this.#state.refused;
  }

  get cursor() {
    return this.#state.cursor;
  }

  // What is shown: the server's word with the own changes over it that it has not settled yet.
  get view() {
    this.#view ??= this.#outbox.reduce(done, this.#records);
    return this.#view;
  }

  // What this device has seen: taken when somebody begins to edit.
  context() {
    const { epoch, cursor, seen } = this.#state;
    return seen ?? (epoch === null ? { cursor } : { epoch, cursor });
  }

  // One local transaction: a change, kept before it is shown.
  edit(ops, context = this.context()) {
    const counter = this.#state.counter + 1;
    const change = { counter, context, at: Date.now(), ops };
    return this.#kept({ state: { ...this.#state, counter }, outbox: [change] });
  }

  // Typing: goes on in the last change where that is an edit of the same field, not long ago,
  // which nobody has sent yet and which had seen the same.
  type(op, pause_ms) {
    const last = this.#outbox.at(-1);
    if (!last || !this.#goesOn(last, op, pause_ms)) return this.edit([op]);
    const update = this.merge([last.ops[0].update, op.update]);
    return this.#kept({ outbox: [{ ...last, typed_at: Date.now(), ops: [{ ...op, update }] }] });
  }

  #goesOn(last, op, pause_ms) {
    const [first, more] = last.ops;
    return (
      this.merge && !last.sent && !more &&
      ["op", "collection", "id", "field"].every((name) => op[name] === first[name]) &&
      Date.now() - (last.typed_at ?? last.at) < pause_ms &&
      first.update.length + op.update.length < TYPED_CHARS_MAX &&
      JSON.stringify(last.context) === JSON.stringify(this.context())
    );
  }

  // One round: what waits goes up, what is new comes down. Returns whether more waits.
  sync(signal) {
    const round = this.#rounds.then(() => this.#round(signal));
    this.#rounds = round.catch(() => {});
    return round;
  }

  async #round(signal) {
    signal.throwIfAborted();
    const sent = await this.#sealed(this.#outbox.slice(0, CHANGES_MAX));
    try {
      await this.#apply(sent, await this.#transfer(sent, signal));
    } catch (error) {
      if (error.code !== "device_fork") throw error;
      await this.#register(signal);
      return true;
    }
    return this.pending.length > 0;
  }

  // Under a new id: the server has got changes under this one that are not this device's.
  async #register(signal) {
    const old = this.id;
    const answer = await this.session.replacement();
    // Nothing more can come under the old id: what the log has now is all.
    const logged = await this.#logged(answer.access_token, signal);
    const rest = unknown(this.#outbox, logged, old);
    const done = (rest[0]?.counter ?? this.#state.counter + 1) - 1;
    const own = done > 0 ? { [old]: done } : {};
    const seen = this.context();
    const state = {
      ...this.#state,
      session: this.session.use(answer),
      former: [...this.#state.former, old],
      counter: rest.length,
      cursor: 0,
      seen: { ...seen, clock: { ...seen.clock, ...own } },
    };
    await this.#kept({ state, sent: this.#outbox, outbox: renumbered(rest, own) });
  }

  // The log after this device's cursor.
  async #logged(token, signal) {
    const found = [];
    let after = this.#state.cursor;
    for (let i = 0; i < PAGES_MAX; i += 1) {
      const { head, changes } = await ask("GET", logPath(after), { token, signal });
      found.push(...changes);
      after = changes.at(-1)?.position ?? head;
      if (after >= head) break;
    }
    return found;
  }

  // Where this device stands, as a hello says it.
  stands() {
    const { epoch, cursor, counter } = this.#state;
    return epoch === null ? { cursor, counter } : { epoch, cursor, counter };
  }

  // The changes of the next live push. From here on they stay as they are: the server may know them.
  seal() {
    return this.#sealed(this.pending.slice(0, CHANGES_MAX));
  }

  // What became of the changes of a live push. They stay in view until a delta brings them.
  async settle(changes, { accepted, rejected }) {
    const errors = new Map(rejected.map(({ counter, error }) => [counter, error]));
    const [refused, taken] = parted(changes.filter(({ counter }) => counter <= accepted), errors);
    const held = new Set(this.#outbox.map(({ counter }) => counter));
    const told = taken.filter(({ counter }) => held.has(counter));
    await this.#kept({
      state: this.#withRefused(refused, errors),
      outbox: told.map((change) => ({ ...change, accepted: true })),
      sent: refused,
    });
  }

  // A whole live delta: it goes on where this device stands, and holds its own changes too.
  async take({ from, epoch, cursor, records, reset, clock }) {
    if (from !== this.#state.cursor) throw new Error("The stream has a gap.");
    const own = clock[this.id] ?? 0;
    const sent = this.#outbox.filter((change) => change.sent && change.counter <= own);
    const afresh = reset || from === 0;
    const after = this.#merged(afresh ? new Map() : this.#records, records);
    await this.#moved({ epoch, cursor, sent, after, afresh });
  }

  // Waits until the space has something new, so many seconds at most.
  async wait(seconds, signal) {
    const { epoch, cursor } = this.#state;
    const query = new URLSearchParams({ cursor, wait: seconds, limit: 1 });
    if (epoch) query.set("epoch", epoch);
    const options = { signal, ms: (seconds + 15) * 1000 };
    await this.session.request("GET", `spaces/${SPACE}/pull?${query}`, options);
  }

  log(after) {
    return this.session.request("GET", logPath(after));
  }

  async #sealed(changes) {
    const sealed = changes.map((change) => ({ ...change, sent: true }));
    if (changes.some((change) => !change.sent)) await this.#kept({ outbox: sealed });
    return sealed;
  }

  async #transfer(sent, signal) {
    const { epoch, cursor } = this.#state;
    const whole = { from: cursor, records: [], rejected: [], accepted: 0, reset: false };
    let page = null;
    for (let i = 0; i < PAGES_MAX; i += 1) {
      const changes = i === 0 ? sent.map(plain) : [];
      const answer = await this.#ask({ epoch, cursor, page, changes }, signal);
      whole.records.push(...answer.records);
      whole.rejected.push(...(answer.rejected ?? []));
      whole.accepted = Math.max(whole.accepted, answer.accepted);
      whole.reset ||= answer.reset;
      if (answer.page === null) return { ...whole, epoch: answer.epoch, cursor: answer.cursor };
      page = answer.page;
    }
    throw new Error("The transfer does not end.");
  }

  async #ask({ epoch, cursor, page, changes }, signal) {
    const { counter, discarded } = this.#state;
    const part = { cursor, counter, changes, page };
    if (epoch) part.epoch = epoch;
    if (discarded) part.discarded = discarded;
    const client = { app_version: "1", pending: this.#outbox.length };
    if (this.#outbox.length) client.oldest_pending_at = this.#outbox[0].at;
    const body = { sent_at: Date.now(), client, spaces: { [SPACE]: part } };
    const answer = await this.session.request("POST", "sync", { body, signal });
    const mine = answer.spaces[SPACE];
    if (!mine.error) return mine;
    // The server was restored from a backup. This device keeps nothing that was accepted.
    if (mine.error.code === "counter_gap" && !discarded) {
      await this.#keep({ state: { ...this.#state, discarded: changes[0].counter - 1 } });
      return this.#ask({ epoch, cursor, page, changes }, signal);
    }
    const { code, detail } = mine.error;
    throw Object.assign(new Error(detail ?? code), { code });
  }

  async #apply(sent, { from, records, rejected, accepted, reset, epoch, cursor }) {
    if (from !== this.#state.cursor) throw new Error("The device has moved meanwhile.");
    const errors = new Map(rejected.map(({ counter, error }) => [counter, error]));
    const settled = sent.filter(({ counter }) => counter <= accepted);
    const [refused, taken] = parted(settled, errors);
    const afresh = reset || from === 0;
    // Where all that is new is this device's own, the answer may leave out what it has already.
    const own = !reset && cursor - from === taken.length;
    const before = afresh ? new Map() : this.#records;
    const after = this.#merged(own ? taken.reduce(done, before) : before, records);
    const { discarded: _, ...state } = this.#withRefused(refused, errors);
    await this.#moved({ state, epoch, cursor, sent: settled, after, afresh });
  }

  #withRefused(refused, errors) {
    const told = refused.map(({ counter, ops }) => ({ counter, ops, error: errors.get(counter) }));
    return { ...this.#state, refused: [...this.#state.refused, ...told].slice(-REFUSED_KEPT) };
  }

  #merged(before, deltas) {
    const after = new Map(before);
    for (const delta of deltas) {
      const record = absorbed(after.get(keyOf(delta)), delta);
      if (record) after.set(keyOf(delta), this.#folded(record));
      else after.delete(keyOf(delta));
    }
    return after;
  }

  #moved({ state = this.#state, epoch, cursor, ...rest }) {
    return this.#kept({ state: { ...state, epoch, cursor, seen: null }, ...rest });
  }

  #folded(record) {
    const { documents } = record;
    const long = Object.keys(documents).filter((field) => documents[field].length > UPDATES_MAX);
    if (!this.merge || !long.length) return record;
    const folded = long.map((field) => [field, [this.merge(documents[field])]]);
    return { ...record, documents: { ...documents, ...Object.fromEntries(folded) } };
  }

  // In memory and on the disk; then all who look are told.
  async #kept({ state, outbox = [], sent = [], after = this.#records, afresh = false }) {
    const before = this.#records;
    const put = [...after.values()].filter((record) => afresh || before.get(keyOf(record)) !== record);
    const gone = [...before.values()].filter((record) => !after.has(keyOf(record)));
    const left = new Map(this.#outbox.map((change) => [change.counter, change]));
    for (const change of sent) left.delete(change.counter);
    for (const change of outbox) left.set(change.counter, change);
    this.#records = after;
    this.#outbox = [...left.values()].sort((one, other) => one.counter - other.counter);
    this.#view = null;
    await this.#keep({
      state,
      outbox,
      afresh,
      records: put,
      gone: gone.map(({ collection, id }) => [collection, id]),
      sent: sent.map(({ counter }) => counter),
    });
    this.dispatchEvent(new Event("change"));
  }

  // The state in memory moves at once, so that two edits in a row get two counters.
  async #keep({ state, ...rest }) {
    if (state) this.#state = state;
    const writing = this.#writes.then(() => this.store.write({ state, ...rest }));
    this.#writes = writing.catch(() => {});
    await writing;
  }
}

const logPath = (after) => `spaces/${SPACE}/log?${new URLSearchParams({ after })}`;

// Those with an error, and those without.
function parted(changes, errors) {
  const wrong = (change) => errors.has(change.counter);
  return [changes.filter(wrong), changes.filter((change) => !wrong(change))];
}
