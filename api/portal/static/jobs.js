// The list of jobs, which asks for news of itself.
"use strict";

// Whoever acts on a row stays there when its button goes.
let row = null;

document.addEventListener("focusin", (event) => {
  row = event.target.closest("#jobs tr[id]")?.id ?? null;
});

// What keeps the news away is told until they come again.
let troubled = false;

document.addEventListener("htmx:response:error", (event) => {
  troubled ||= event.detail.ctx.request.method === "GET";
});

document.addEventListener("htmx:after:swap", (event) => {
  if (row && document.activeElement === document.body) document.getElementById(`open-${row}`)?.focus();
  if (troubled && event.detail.ctx.response.status < 400) {
    document.getElementById("notices").replaceChildren();
    troubled = false;
  }
});
