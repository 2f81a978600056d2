// A new job in three answers: the amount is shown while the slider moves, and nothing is submitted but what the page
// shows. The page works without.
"use strict";

document.addEventListener("input", (event) => {
  document.getElementById("submit-plan")?.setAttribute("disabled", ""); // until the answer to this input is shown
  const slider = event.target;
  if (slider.id !== "amount") return;
  const share = `${Math.round(slider.value * 100)} %`;
  slider.setAttribute("aria-valuetext", `${share} ${slider.dataset.shown}`);
  const along = (100 * (slider.value - slider.min)) / (slider.max - slider.min);
  const marker = document.getElementById("marker");
  marker?.setAttribute("x1", `${along}%`);
  marker?.setAttribute("x2", `${along}%`);
  document.getElementById("amount-shown").textContent = share;
});
