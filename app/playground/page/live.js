// One device's conversation on /v1/live: pushes as they are made, deltas as they come.
// It begins where a round has just brought the device to the head, and ends with the socket; what
// goes wrong in it, the next round finds out in words.

const LIVE = new URL("../v1/live", import.meta.url);
LIVE.protocol = LIVE.protocol.replace("http", "ws");
const SPACE = "me";
const READY_MS = 4_000;
const PING_MS = 25_000;
// A socket that says nothing for so long after a ping is dead.
const PONG_MS = 10_000;
const TOKEN_OVER = 4401;

// No conversation could begin: the network lets no socket through, or the server has none to give.
export class NoSocket extends Error {}

export class Live {
  #ready = false;
  // The changes of the push that is on its way.
  #flying = null;
  #parts = [];
  #timer;
  // What is heard is done one after the other.
  #done = Promise.resolve();

  // Until the signal ends it; rejects when the socket does.
  static async talk(device, signal, onReady) {
    const token = await device.session.token();
    signal.throwIfAborted();
    const live = new Live(device, onReady);
    const push = () => live.#push().catch((error) => live.#end(error));
    const stop = () => live.#end();
    signal.addEventListener("abort", stop);
    device.addEventListener("change", push);
    try {
      await live.#open(token);
    } finally {
      signal.removeEventListener("abort", stop);
      device.removeEventListener("change", push);
      await live.#done.catch(() => {});
    }
  }

  constructor(device, onReady) {
    Object.assign(this, { device, onReady });
  }

  #open(token) {
    this.socket = new WebSocket(LIVE);
    this.#expectIn(READY_MS);
    this.socket.onopen = () => {
      const spaces = { [SPACE]: this.device.stands() };
      this.#send({ type: "hello", token, sent_at: Date.now(), spaces });
    };
    this.socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    this.socket.onclose = ({ code }) => this.#lost(code);
    return new Promise((resolve, reject) => {
      this.#end = (error) => {
        clearTimeout(this.#timer);
        this.socket.close();
        if (error) reject(error);
        else resolve();
      };
    });
  }

  #end = () => {};

  #lost(code) {
    if (code === TOKEN_OVER) this.device.session.expire();
    const known = this.#ready || code === TOKEN_OVER;
    this.#end(known ? new Error("The connection was lost.") : new NoSocket());
  }

  #hear(message) {
    this.#restFor(PING_MS);
    this.#done = this.#done.then(() => this.#take(message));
    this.#done.catch((error) => this.#end(error));
  }

  async #take(message) {
    switch (message.type) {
      case "ready":
        return this.#begin(message.spaces[SPACE]);
      case "delta":
        return this.#apply(message);
      case "pushed":
        await this.device.settle(this.#flying ?? [], message);
        this.#flying = null;
        return this.#push();
      case "token_expiring":
        this.device.session.expire();
        return this.#send({ type: "token", token: await this.device.session.token() });
      case "error":
        throw Object.assign(new Error(message.detail), { code: message.code });
      default:
        return undefined;
    }
  }

  #begin({ error }) {
    if (error) throw Object.assign(new Error(error.detail), { code: error.code });
    this.#ready = true;
    this.onReady();
    return this.#push();
  }

  // Partial deltas belong with the one that follows: applied together, as a round's pages are.
  async #apply(delta) {
    this.#parts.push(delta);
    if (delta.partial) return;
    const parts = this.#parts;
    this.#parts = [];
    await this.device.take({
      ...delta,
      records: parts.flatMap(({ records }) => records),
      reset: parts.some(({ reset }) => reset),
      clock: Object.assign({}, ...parts.map(({ clock }) => clock)),
    });
    this.#send({ type: "ack", space: SPACE, cursor: delta.cursor });
  }

  // What waits, one message at a time.
  async #push() {
    if (!this.#ready || this.#flying || !this.device.pending.length) return;
    this.#flying = [];
    this.#flying = await this.device.seal();
    const { counter } = this.device.stands();
    const changes = this.#flying.map(plain);
    this.#send({ type: "push", ref: counter, space: SPACE, sent_at: Date.now(), counter, changes });
  }

  #send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // Quiet for so long: asks whether anybody is there.
  #restFor(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#send({ type: "ping" });
      this.#expectIn(PONG_MS);
    }, ms);
  }

  #expectIn(ms) {
    this.#timer = setTimeout(() => this.#lost(0), ms);
  }
}

// A change as it travels, without what only this device knows of it.
export function plain({ counter, context, at, ops }) {
  return { counter, context, at, ops };
}
