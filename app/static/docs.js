"use strict";
// The page /docs reads whole without this: it finds, fills in the token and copies.

const find = document.getElementById("find");
find.addEventListener("input", () => {
  const wanted = find.value.trim().toLowerCase();
  for (const item of document.querySelectorAll("nav li")) {
    const section = document.getElementById(item.dataset.for);
    const hidden = !section.textContent.toLowerCase().includes(wanted);
    item.hidden = hidden;
    section.hidden = hidden;
  }
});

const token = document.getElementById("token");
const lines = [...document.querySelectorAll(".curl")].map((line) => [line, line.textContent]);
token.addEventListener("input", () => {
  // Only what a token is made of: the line is pasted into a shell.
  const clean = token.value.replace(/[^\w.-]/g, "") || "$TOKEN";
  for (const [line, text] of lines) line.textContent = text.replace("$TOKEN", clean);
});

for (const button of document.querySelectorAll(".copy")) {
  // Browsers let only pages from a safe origin write to the clipboard.
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.nextElementSibling.textContent);
    button.textContent = "Copied";
  });
}
