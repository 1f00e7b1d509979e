// A device's way to the server: its account, its login and its requests.
// Promises: a token is renewed in one place at a time; every request ends, if by its time limit.

const API = new URL("../v1/", import.meta.url);
const REQUEST_MS = 30_000;
const ACCOUNT = "rejoin.demo.account";

// What the server answers in place of what was asked for (RFC 9457).
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? body.title ?? `The server answered ${status}.`);
    Object.assign(this, { status, code: body.code, body });
  }
}

export async function ask(method, path, { body, token, signal, ms = REQUEST_MS } = {}) {
  const headers = { Accept: "application/json" };
  if (body) headers["Content-Type"] = "application/json";
  if (token) headers.Authorization = `Bearer ${token}`;
  const signals = [AbortSignal.timeout(ms), ...(signal ? [signal] : [])];
  const request = { method, headers, body: body && JSON.stringify(body), cache: "no-store" };
  const asked = fetch(new URL(path, API), { ...request, signal: AbortSignal.any(signals) });
  const answer = await asked.catch(inWords);
  if (answer.status === 204) return null;
  const read = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, read);
  return read;
}

function inWords(error) {
  if (error.name === "TimeoutError") throw new Error("The server did not answer in time.");
  if (error instanceof TypeError) throw new Error("The server can’t be reached.");
  throw error;
}

// The visitor's account: made by the ordinary signup, with a random password that only this
// browser has. All panes ask for it; the first makes it.
export class Account {
  #made = null;

  async credentials() {
    this.#made ??= this.#make().catch((error) => {
      this.#made = null;
      throw error;
    });
    return this.#made;
  }

  async #make() {
    const kept = JSON.parse(localStorage.getItem(ACCOUNT) ?? "null");
    if (kept?.made) return kept;
    const fresh = kept ?? { email: `demo-${random(8)}@rejoin.invalid`, password: random(24) };
    // Kept before it is sent: were the answer lost, the account would be there and nobody in it.
    localStorage.setItem(ACCOUNT, JSON.stringify(fresh));
    await ask("POST", "auth/signup", { body: fresh }).catch((error) => {
      if (!(kept && error.code === "email_taken")) throw closed(error);
    });
    const account = { ...fresh, made: true };
    localStorage.setItem(ACCOUNT, JSON.stringify(account));
    return account;
  }

  static forget() {
    localStorage.removeItem(ACCOUNT);
  }
}

function closed(error) {
  if (![401, 403, 404, 405].includes(error.status)) return error;
  return new Problem(error.status, {
    ...error.body,
    detail: "This server takes no new accounts from a page, so the demo can’t begin here.",
  });
}

function random(bytes) {
  const made = crypto.getRandomValues(new Uint8Array(bytes));
  return [...made].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// The login of one device. `kept` is {device_id, refresh_token} or {}; `keep` stores them.
export class Session {
  #access = null;
  #renewing = null;

  constructor(name, account, kept, keep) {
    Object.assign(this, { name, account, kept, keep });
  }

  get device() {
    return this.kept.device_id;
  }

  async request(method, path, options = {}) {
    const token = await this.token();
    try {
      return await ask(method, path, { ...options, token });
    } catch (error) {
      if (error.status !== 401) throw error;
      // Too old, or signed with a secret that has changed.
      if (this.#access === token) this.#access = null;
      return ask(method, path, { ...options, token: await this.token() });
    }
  }

  // The access token is over, or soon: the next request gets another.
  expire() {
    this.#access = null;
  }

  async token() {
    if (this.#access) return this.#access;
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = null;
    });
    return this.#renewing;
  }

  // A new registration in place of this one, whose id was used twice. It takes effect by `use`,
  // together with all that goes with the new id.
  replacement() {
    return this.#ask({ replaces: this.kept.device_id });
  }

  async #renew() {
    const { refresh_token } = this.kept;
    if (refresh_token) {
      try {
        return await this.#take(await ask("POST", "auth/refresh", { body: { refresh_token } }));
      } catch (error) {
        if (error.status !== 401) throw error;
      }
    }
    return this.#login();
  }

  async #login() {
    const { device_id } = this.kept;
    return this.#take(await this.#ask({}, device_id ? { device_id } : {}));
  }

  async #ask(described, known = {}) {
    const { email, password } = await this.account.credentials();
    const device = { name: this.name, platform: "browser", app_version: "1", ...described };
    return ask("POST", "auth/login", { body: { email, password, device, ...known } });
  }

  async #take(answer) {
    await this.keep(this.use(answer));
    return answer.access_token;
  }

  // From here on the login is this one; the caller stores what it returns.
  use({ access_token, refresh_token, device_id }) {
    this.#access = access_token;
    this.kept = { device_id, refresh_token };
    return this.kept;
  }
}
