// One device on the page: its bar with the switch, its list, its text, and what waits.

import { brief, cloned, element } from "./dom.js";
import { Line } from "./line.js";
import { List } from "./list.js";
import { dot, operations, seenUpTo, titlesOf } from "./log.js";
import { Text } from "./text.js";

const DETAIL_MAX = 200;
const STATUS = {
  offline: "Offline",
  connecting: "Connecting …",
  live: "Live",
  polling: "Online, by long polls",
  waiting: "Out of reach, trying again",
  stopped: "Stopped",
};

export class Pane {
  constructor(name, device, nameOf) {
    this.name = name;
    this.device = device;
    this.nameOf = nameOf;
    this.node = cloned("pane");
    this.node.dataset.device = name;
    this.node.setAttribute("aria-label", name);
    this.#find("h2").textContent = name;
    this.line = new Line(device);
    this.list = new List(this.node, device, nameOf, (edit) => this.#act(edit));
    this.text = null;
    this.#find(".switch").addEventListener("click", () => this.#switch());
    device.addEventListener("change", () => this.show());
    this.line.addEventListener("change", () => this.#showLine());
    if (!this.#wasOffline()) this.line.start();
    this.show();
    this.#showLine();
  }

  useYjs(yjs) {
    const area = this.#find("textarea");
    this.text = new Text(area, this.device, yjs, (edit) => this.#act(edit));
    this.text.show();
    // Before this, what somebody typed would have gone nowhere.
    area.disabled = false;
  }

  withoutText(sentence) {
    this.#find("textarea").hidden = true;
    const missing = this.#find(".missing");
    missing.replaceChildren(...sentence);
    missing.hidden = false;
  }

  show() {
    this.list.show();
    this.text?.show();
    this.#changes(".waiting", this.device.pending, (count) => `${count} waiting to be sent`);
    this.#changes(".refused", this.device.refused, (count) => `${count} put aside by the server`);
    this.#showStatus();
  }

  #changes(selector, changes, title) {
    const box = this.#find(selector);
    box.hidden = !changes.length;
    const count = changes.length === 1 ? "1 change" : `${changes.length} changes`;
    box.querySelector("summary").textContent = title(count);
    const titles = titlesOf(this.device.view);
    box.querySelector("ol").replaceChildren(...changes.map((change) => this.#change(change, titles)));
  }

  #change(change, titles) {
    const mark = dot(this.device.id ?? this.name, change.counter, () => this.name);
    const shown = element("li", {}, mark, operations(change, titles));
    const { context, error } = change;
    if (context) shown.append(element("p", { className: "seen", text: seenUpTo(context, "has") }));
    const why = error && `${error.code}: ${brief(error.detail ?? "", DETAIL_MAX)}`;
    if (error) shown.append(element("p", { className: "badge", text: why }));
    return shown;
  }

  #showLine() {
    const button = this.#find(".switch");
    button.setAttribute("aria-checked", String(!this.line.wanted));
    this.node.dataset.status = this.line.status;
    this.node.dataset.online = this.line.online;
    this.#trouble(this.line.problem && told(this.line.problem, this.line.status));
    this.#showStatus();
  }

  #showStatus() {
    const waiting = this.device.pending.length;
    const { cursor, unsettled } = this.device;
    const more = waiting ? `, ${waiting} to send` : this.line.online && !unsettled ? ", in step" : "";
    const text = STATUS[this.line.status] + more;
    const status = this.#find(".status");
    if (status.textContent !== text) status.textContent = text;
    Object.assign(this.node.dataset, { unsettled, cursor });
  }

  #trouble(text) {
    const box = this.#find(".trouble");
    box.hidden = !text;
    box.textContent = text ?? "";
  }

  async #act(edit) {
    try {
      await edit;
    } catch (error) {
      this.#trouble(`This browser did not keep the edit: ${error.message}`);
    }
  }

  // Kept, so that a page that is loaded again is where it was.
  #switch() {
    if (this.line.wanted) this.line.stop();
    else this.line.start();
    localStorage.setItem(`rejoin.demo.offline.${this.name}`, String(!this.line.wanted));
    this.#showLine();
  }

  #wasOffline() {
    return localStorage.getItem(`rejoin.demo.offline.${this.name}`) === "true";
  }

  #find(selector) {
    return this.node.querySelector(selector);
  }
}

function told({ code, message }, status) {
  // Said to nobody who mistyped: the password is the page's own.
  const unknown = code === "bad_credentials";
  const what = unknown ? "This server doesn’t know the page’s account: its data is another’s." : message;
  return status === "stopped" ? `${what} “Start afresh” makes a new account with new devices.` : what;
}
