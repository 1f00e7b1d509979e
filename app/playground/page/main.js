// The page /demo: two devices of one account, and the log beside them.

import { element } from "./dom.js";
import { Device } from "./device.js";
import { Log } from "./log.js";
import { Pane } from "./pane.js";
import { Account } from "./session.js";
import { dropStore, openStore } from "./store.js";

const NAMES = ["Phone", "Laptop"];
const storeOf = (name) => `rejoin.demo.${name}`;

async function begin() {
  const account = new Account();
  const stores = await Promise.all(NAMES.map((name) => openStore(storeOf(name))));
  const devices = await Promise.all(NAMES.map((name, i) => Device.open(name, stores[i], account)));
  const nameOf = (id) => devices.find((device) => device.is(id))?.name ?? "Another";
  const panes = devices.map((device) => new Pane(device.name, device, nameOf));
  document.getElementById("panes").append(...panes.map(({ node }) => node));
  document.getElementById("main").hidden = false;
  followLog(panes, nameOf);
  offerAfresh(panes, stores);
  for (const name of ["online", "focus"]) {
    addEventListener(name, () => panes.forEach((pane) => pane.line.wanted && pane.line.retry()));
  }
  await bringText(panes);
  if (!navigator.serviceWorker) return;
  await keepPage().catch((error) => console.warn("The page is not kept:", error));
}

// Read again whenever a device has moved on, and when one is back.
function followLog(panes, nameOf) {
  const log = new Log(document.querySelector(".log"), nameOf);
  const show = () => log.show(panes.some(({ line }) => line.online));
  for (const { device, line } of panes) {
    let shown = null;
    const look = () => {
      show();
      if (!line.online) shown = null;
      if (!line.online || device.cursor === shown) return;
      shown = device.cursor;
      // The panes tell what is wrong; the next move tries again.
      log.read(device).catch(() => {
        shown = null;
      });
    };
    device.addEventListener("change", look);
    line.addEventListener("change", look);
  }
  show();
}

async function bringText(panes) {
  const from = document.body.dataset.yjs;
  try {
    if (!from) throw new Error("Yjs is not there");
    const yjs = await import(from);
    for (const pane of panes) pane.useYjs(yjs);
  } catch {
    for (const pane of panes) {
      pane.withoutText([
        "Editing text together needs Yjs, which is not bundled yet: run ",
        element("code", { text: "make yjs" }),
        " (it wants Node and npm) and load this page again. The list works without it.",
      ]);
    }
  }
}

function offerAfresh(panes, stores) {
  const button = document.getElementById("afresh");
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.disabled = true;
    for (const { line } of panes) line.stop();
    for (const store of stores) store.close();
    for (const name of NAMES) {
      await dropStore(storeOf(name));
      localStorage.removeItem(`rejoin.demo.offline.${name}`);
    }
    Account.forget();
    location.reload();
  });
}

function fail(text) {
  const trouble = document.getElementById("trouble");
  trouble.textContent = text;
  trouble.hidden = false;
}

// Keeps the page itself for the time when the server is away, where the browser lets a page do so.
async function keepPage() {
  const scope = new URL("../demo", import.meta.url).href;
  const url = new URL("worker.js", import.meta.url).href;
  const policy = self.trustedTypes?.createPolicy("rejoin-demo", { createScriptURL: () => url });
  await navigator.serviceWorker.register(policy ? policy.createScriptURL("") : url, { scope });
  await navigator.serviceWorker.ready;
  const parts = performance.getEntriesByType("resource").map(({ name }) => name);
  const kept = await caches.open("rejoin.demo.page");
  await kept.addAll([scope, ...parts.filter((part) => part.startsWith(`${scope}/`))]);
}

// Two tabs would be one device twice: the second one waits until the first is closed.
async function alone(run) {
  // Browsers have locks on safe origins only (https, localhost).
  if (!navigator.locks) return run();
  const held = await navigator.locks.request("rejoin.demo", { ifAvailable: true }, (lock) => {
    if (!lock) return false;
    return run().then(() => new Promise(() => {}));
  });
  if (held === false) fail("This page is open in another tab: its two devices are there.");
}

alone(begin).catch((error) => {
  const wants = "It needs IndexedDB and local storage, which private windows may lack.";
  fail(`This browser can’t run the demo: ${error.message} ${wants}`);
});
