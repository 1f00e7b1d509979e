// A small offline-first device: its copy of one space, its outbox, its cursor.
// Promises: an edit stands in this browser's storage before anything is sent; a change that was
// sent is never altered; a context is taken when the edit is made; a transfer is applied whole.

import { absorbed, done, keyOf } from "./records.js";
import { Session } from "./session.js";

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
const FRESH = { cursor: 0, epoch: null, counter: 0, session: {}, refused: [] };

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

  get pending() {
    return this.#outbox;
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
    const { epoch, cursor } = this.#state;
    return epoch === null ? { cursor } : { epoch, cursor };
  }

  // One local transaction: a change, kept before it is shown.
  edit(ops, context = this.context()) {
    const counter = this.#state.counter + 1;
    const change = { counter, context, at: Date.now(), ops };
    return this.#kept({
      state: { ...this.#state, counter },
      outbox: [change],
    });
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
    const sent = await this.#seal();
    const transfer = await this.#transfer(sent, signal);
    await this.#apply(sent, transfer);
    return this.#outbox.length > 0;
  }

  // Waits until the space has something new, so many seconds at most.
  async wait(seconds, signal) {
    const { epoch, cursor } = this.#state;
    const query = new URLSearchParams({ cursor, wait: seconds, limit: 1, ...(epoch ? { epoch } : {}) });
    const options = { signal, ms: (seconds + 15) * 1000 };
    await this.session.request("GET", `spaces/${SPACE}/pull?${query}`, options);
  }

  async log(after, signal) {
    const query = new URLSearchParams({ after });
    return this.session.request("GET", `spaces/${SPACE}/log?${query}`, { signal });
  }

  // The changes of the next push. From here on they stay as they are: the server may know them.
  async #seal() {
    const next = this.#outbox.slice(0, CHANGES_MAX);
    const fresh = next.filter((change) => !change.sent).map((change) => ({ ...change, sent: true }));
    if (fresh.length) await this.#kept({ outbox: fresh });
    return this.#outbox.filter((change) => change.sent).slice(0, CHANGES_MAX);
  }

  async #transfer(sent, signal) {
    const { epoch, cursor } = this.#state;
    const whole = { records: [], rejected: [], accepted: 0, reset: false };
    let page = null;
    for (let i = 0; i < PAGES_MAX; i += 1) {
      const changes = i === 0 ? sent.map(({ counter, context, at, ops }) => ({ counter, context, at, ops })) : [];
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
    const part = { cursor, counter, changes, page, ...(epoch ? { epoch } : {}) };
    if (discarded) part.discarded = discarded;
    const oldest = this.#outbox[0]?.at;
    const client = { app_version: "1", pending: this.#outbox.length, ...(oldest ? { oldest_pending_at: oldest } : {}) };
    const body = { sent_at: Date.now(), client, spaces: { [SPACE]: part } };
    const answer = await this.session.request("POST", "sync", { body, signal });
    const mine = answer.spaces[SPACE];
    if (!mine.error) return mine;
    // The server was restored from a backup. This device keeps nothing that was accepted.
    if (mine.error.code === "counter_gap") {
      await this.#keep({ state: { ...this.#state, discarded: changes[0].counter - 1 } });
    }
    const { code, detail } = mine.error;
    throw Object.assign(new Error(detail ?? code), { code });
  }

  async #apply(sent, { records, rejected, accepted, reset, epoch, cursor }) {
    const errors = new Map(rejected.map(({ counter, error }) => [counter, error]));
    const settled = sent.filter(({ counter }) => counter <= accepted);
    const applied = settled.filter(({ counter }) => !errors.has(counter));
    const refused = settled.filter(({ counter }) => errors.has(counter));
    const afresh = reset || this.#state.cursor === 0;
    // Where all that is new is this device's own, the answer may leave out what it has already.
    const own = !reset && cursor - this.#state.cursor === applied.length;
    const before = afresh ? new Map() : this.#records;
    const after = own ? applied.reduce(done, before) : new Map(before);
    for (const delta of records) {
      const record = absorbed(after.get(keyOf(delta)), delta);
      if (record) after.set(keyOf(delta), this.#folded(record));
      else after.delete(keyOf(delta));
    }
    const told = refused.map(({ counter, ops }) => ({ counter, ops, error: errors.get(counter) }));
    const { discarded: _, ...state } = this.#state;
    state.refused = [...state.refused, ...told].slice(-REFUSED_KEPT);
    await this.#kept({ state: { ...state, epoch, cursor }, sent: settled, after, afresh });
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
    for (const change of outbox) left.set(change.counter, change);
    for (const change of sent) left.delete(change.counter);
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
