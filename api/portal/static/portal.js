// What pages do besides htmx: nothing a page needs to be used.
"use strict";

// Buttons that destroy something ask first.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-confirm]");
  if (button && !window.confirm(button.dataset.confirm)) event.preventDefault();
});

// A page in the background asks for nothing, and no answer takes away a question that is open.
document.addEventListener("htmx:before:request", (event) => {
  const asking = event.target;
  if (!(asking instanceof Element) || !asking.getAttribute("hx-trigger")?.startsWith("every")) return;
  if (document.hidden || asking.querySelector(".ask[open]")) {
    event.preventDefault();
  }
});

// How long ago something was goes on while a page is open, in the words of the server's `formatting.since`.
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
setInterval(() => {
  for (const each of document.querySelectorAll("time[data-ago]")) {
    const seconds = (Date.now() - Date.parse(each.dateTime)) / 1000;
    const [unit, length] = UNITS.find(([, least]) => seconds >= Math.max(5, least)) ?? [];
    each.textContent = unit ? `${Math.floor(seconds / length)} ${unit} ago` : "just now";
  }
}, 10_000);

// "Copy" buttons, which are of use only here.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const shown = document.querySelector(button.dataset.copy);
  const notices = document.getElementById("notices");
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(shown.textContent);
    notices.textContent = "Copied.";
  } else {
    getSelection().selectAllChildren(shown); // plain http, where browsers let no script copy
    notices.textContent = "Selected: copy it with your keyboard.";
  }
});
