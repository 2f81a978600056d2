// The list of jobs: whoever acts on a row stays there when its button goes.
"use strict";

let row = null;

document.addEventListener("focusin", (event) => {
  row = event.target.closest("#jobs tr[id]")?.id ?? null;
});

document.addEventListener("htmx:after:swap", () => {
  if (row && document.activeElement === document.body) document.getElementById(`open-${row}`)?.focus();
});
