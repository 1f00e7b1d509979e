// Keeps one device in touch while it may be: pushes what waits, waits for what is new, comes back
// by itself after an error, later each time.

const WAIT_SECONDS = 25;
const BACKOFF_MS = 500;
const BACKOFF_MS_MAX = 15_000;
// Only the visitor can mend these: trying again would change nothing.
const FINAL = new Set(["bad_credentials", "device_fork", "device_revoked"]);

export class Line extends EventTarget {
  #ending = null;
  #wake = () => {};
  #failures = 0;

  constructor(device) {
    super();
    this.device = device;
    this.status = "offline";
    this.problem = null;
    device.addEventListener("change", () => {
      if (device.pending.some((change) => !change.sent)) this.#wake();
    });
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
    if (signal.aborted) return;
    this.#failures = 0;
    this.#tell("online", null);
    if (more || woken.aborted) return;
    try {
      await this.device.wait(WAIT_SECONDS, woken);
    } catch (error) {
      if (!woken.aborted) throw error;
    }
  }

  async #after(error, signal) {
    this.#failures += 1;
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
    Object.assign(this, { status, problem });
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
