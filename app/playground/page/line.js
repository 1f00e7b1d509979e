// Keeps one device in touch while it may be: live where a socket goes through, by long polls where
// none does. Comes back by itself after an error, later each time.

import { Live, NoSocket } from "./live.js";

const WAIT_SECONDS = 25;
const BACKOFF_MS = 500;
const BACKOFF_MS_MAX = 15_000;
// Where no socket goes through, it is tried again so much later.
const SOCKET_AGAIN_MS = 60_000;
// Only the visitor can mend these: trying again would change nothing.
const FINAL = new Set(["bad_credentials", "device_revoked"]);

export class Line extends EventTarget {
  #ending = null;
  #wake = () => {};
  #failures = 0;
  #online_at = 0;
  #socket_from = 0;

  constructor(device) {
    super();
    this.device = device;
    this.status = "offline";
    this.problem = null;
    device.addEventListener("change", () => {
      if (device.pending.some((change) => !change.sent)) this.#wake();
    });
  }

  get online() {
    return this.status === "live" || this.status === "polling";
  }

  get wanted() {
    return this.#ending !== null;
  }

  start() {
    if (this.#ending) return;
    this.#ending = new AbortController();
    this.#run(this.#ending.signal);
  }

  stop() {
    this.#ending?.abort();
    this.#ending = null;
    this.#tell("offline", null);
  }

  // To be called when the network may be back.
  retry() {
    this.#wake();
  }

  async #run(signal) {
    this.#failures = 0;
    this.#tell("connecting", null);
    while (!signal.aborted) {
      try {
        await this.#round(signal);
      } catch (error) {
        if (signal.aborted) return;
        await this.#after(error, signal);
      }
    }
  }

  async #round(signal) {
    const woken = this.#alarm(signal);
    const more = await this.device.sync(signal);
    if (signal.aborted || more) return;
    if (Date.now() < this.#socket_from) return this.#poll(woken);
    try {
      await Live.talk(this.device, signal, () => this.#tell("live", null));
    } catch (error) {
      if (!(error instanceof NoSocket)) throw error;
      this.#socket_from = Date.now() + SOCKET_AGAIN_MS;
    }
  }

  async #poll(woken) {
    this.#tell("polling", null);
    if (woken.aborted) return;
    await this.device.wait(WAIT_SECONDS, woken).catch((error) => {
      if (!woken.aborted) throw error;
    });
  }

  async #after(error, signal) {
    // An outage after a good while is a new one.
    const good = this.online && Date.now() - this.#online_at > BACKOFF_MS_MAX;
    this.#failures = good ? 1 : this.#failures + 1;
    const most = Math.min(BACKOFF_MS * 2 ** this.#failures, BACKOFF_MS_MAX);
    const told = (error.body?.retry_after ?? 0) * 1000;
    this.#tell(FINAL.has(error.code) ? "stopped" : "waiting", error);
    // Not all at once after an outage: somewhere in the second half of the pause.
    const pause = FINAL.has(error.code) ? Infinity : Math.max(told, most * (0.5 + Math.random() / 2));
    await paused(pause, this.#alarm(signal));
  }

  // A signal that ends with the line, or when there is something to do.
  #alarm(signal) {
    const alarm = new AbortController();
    this.#wake = () => alarm.abort();
    return AbortSignal.any([signal, alarm.signal]);
  }

  #tell(status, problem) {
    const was = this.online;
    Object.assign(this, { status, problem });
    if (this.online && !was) this.#online_at = Date.now();
    this.dispatchEvent(new Event("change"));
  }
}

function paused(ms, signal) {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = ms === Infinity ? null : setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
