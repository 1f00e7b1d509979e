// Elements from text. What comes from a record is only ever text.

export function element(name, { text, className, title, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  if (title) made.title = title;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export function cloned(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

// The time of day, as the reader writes it.
export function clock(ms) {
  const time = new Date(ms);
  return Number.isNaN(time.getTime()) ? "?" : time.toLocaleTimeString([], { timeStyle: "medium" });
}

// A value on one line, cut where it is long.
export function brief(value, most = 60) {
  const text = typeof value === "string" ? `“${value}”` : JSON.stringify(value);
  return text.length > most ? `${Array.from(text).slice(0, most).join("")}…` : text;
}
