// The console works without this: it finds as one types, and keeps what is shown up to date.

const POLL_MS = 3_000;
const POLL_MS_MAX = 60_000;
// A tab that nobody touches for so long asks no more, until somebody does.
const IDLE_MS = 30 * 60_000;
const TYPING_MS = 150;

// The server escaped what users wrote; only its pages come through here (Trusted Types).
const rules = { createHTML: (text) => text };
const policy = window.trustedTypes?.createPolicy("rejoin-console", rules) ?? rules;

class Ended extends Error {}

/** The server's page at this address, as a document that runs nothing. */
async function read(address, signal) {
  const answer = await fetch(address, { signal, headers: { Accept: "text/html" } });
  if (answer.redirected && new URL(answer.url).pathname.endsWith("/login")) throw new Ended();
  if (!answer.ok) throw new Error(`${answer.status}`);
  return new DOMParser().parseFromString(policy.createHTML(await answer.text()), "text/html");
}

// What is shown stays up to date ---------------------------------------------------------------

const lost = document.getElementById("lost");
const regions = [...document.querySelectorAll("[data-live]")];
let wait = POLL_MS;
let touched = Date.now();
let timer = 0;

function tell(text, link) {
  lost.replaceChildren(text);
  if (link) {
    const login = document.createElement("a");
    login.href = location.href;
    login.textContent = link;
    lost.append(" ", login);
  }
  lost.hidden = !text;
}

/** Nothing is taken from under somebody's fingers. */
function busy(region) {
  const focus = document.activeElement;
  const typing = region.contains(focus) && focus.matches("input, select, textarea, summary");
  const inputs = [...region.querySelectorAll("input, textarea")];
  const begun = inputs.some((input) => input.value !== input.defaultValue);
  return typing || begun || region.querySelector("details[open]") || !getSelection().isCollapsed;
}

function show(fresh) {
  for (const region of document.querySelectorAll("[data-live]")) {
    const newer = fresh.getElementById(region.id);
    if (!newer || newer.outerHTML === region.outerHTML || busy(region)) continue;
    const focus = region.contains(document.activeElement) && document.activeElement;
    const links = [...region.querySelectorAll("a, button")];
    const made = document.importNode(newer, true);
    region.replaceWith(made);
    if (focus) made.querySelectorAll("a, button")[links.indexOf(focus)]?.focus();
  }
}

async function refresh() {
  try {
    show(await read(location.href));
    wait = POLL_MS;
    tell("");
  } catch (error) {
    if (error instanceof Ended) {
      tell("Your session has ended; this page stands still.", "Log in");
      return;
    }
    wait = Math.min(wait * 2, POLL_MS_MAX);
    tell("The server can't be reached; trying again.");
  }
  plan();
}

function plan() {
  clearTimeout(timer);
  if (document.hidden || Date.now() - touched > IDLE_MS) return;
  timer = setTimeout(refresh, wait);
}

if (regions.length) {
  for (const kind of ["pointerdown", "keydown", "visibilitychange"]) {
    document.addEventListener(kind, () => {
      const asleep = document.hidden || Date.now() - touched > IDLE_MS;
      touched = Date.now();
      if (asleep || kind === "visibilitychange") plan();
    });
  }
  plan();
}

// A step that is a form on this page comes with the form open --------------------------------------

function unfold() {
  const named = location.hash && document.getElementById(location.hash.slice(1));
  if (!(named instanceof HTMLDetailsElement)) return;
  named.open = true;
  named.querySelector("input:not([type=hidden])")?.focus();
}
addEventListener("hashchange", unfold);
unfold();

// Finding as one types -------------------------------------------------------------------------

const box = document.getElementById("q");
const found = document.getElementById("found");
let asking = new AbortController();
let typed = 0;

async function find() {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const q = box.value.trim();
  if (!q) return close();
  try {
    const address = `${box.form.action}?${new URLSearchParams({ q })}`;
    const fresh = await read(address, signal);
    found.replaceChildren(document.importNode(fresh.getElementById("results"), true));
    found.firstElementChild.removeAttribute("id");
    found.hidden = false;
  } catch (error) {
    if (error.name === "AbortError") return;
    found.replaceChildren(
      error instanceof Ended ? "Your session has ended: log in again." : "The search failed.",
    );
    found.hidden = false;
  }
}

function close() {
  asking.abort();
  found.hidden = true;
}

function step(event, by) {
  const stops = [box, ...found.querySelectorAll("a")];
  const next = stops[stops.indexOf(document.activeElement) + by];
  if (next && !found.hidden) {
    event.preventDefault();
    next.focus();
  }
}

if (box) {
  box.addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(find, TYPING_MS);
  });
  box.form.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") step(event, 1);
    else if (event.key === "ArrowUp") step(event, -1);
    else if (event.key === "Escape" && !found.hidden) {
      event.preventDefault();
      close();
      box.focus();
    }
  });
  box.form.addEventListener("focusout", (event) => {
    if (!box.form.contains(event.relatedTarget)) close();
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    box.focus();
    box.select();
  });
}
