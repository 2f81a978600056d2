// The new job page, live: the slider beside the sparsity, and errors at their fields. The page works without either.
"use strict";

(() => {
  const form = document.getElementById("job-form");

  const follow = (slider) => {
    const number = document.getElementById(slider.dataset.follows);
    slider.hidden = false;
    if (number.value) slider.value = number.value;
  };
  const followAll = () => form.querySelectorAll("[data-follows]").forEach(follow);

  form.addEventListener("input", (event) => {
    const field = event.target;
    if (field.dataset.follows) {
      const number = document.getElementById(field.dataset.follows);
      number.value = field.value;
    } else {
      form.querySelectorAll(`[data-follows="${CSS.escape(field.id)}"]`).forEach(follow);
    }
    // Whoever fills one of the ways to say how much goes means that one.
    const goal = field.closest(".goal")?.querySelector("input[name=goal]");
    if (goal && field !== goal) goal.checked = true;
  });

  const tell = (id, message) => {
    const field = document.getElementById(id);
    const box = field?.closest(".field");
    if (!box) return;
    const error = document.createElement("p");
    error.className = "error";
    error.id = `${id}-error`;
    error.textContent = message;
    box.append(error);
    box.classList.add("has-error");
    if (field.matches("input, select, textarea")) {
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", `${error.id} ${field.getAttribute("aria-describedby") ?? ""}`.trim());
    }
  };

  const tellAll = () => {
    form.querySelectorAll(".field > .error").forEach((error) => {
      const box = error.parentElement;
      box.classList.remove("has-error");
      const field = box.querySelector("[aria-invalid]");
      if (field) {
        field.removeAttribute("aria-invalid");
        const others = (field.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => id && id !== error.id);
        if (others.length) field.setAttribute("aria-describedby", others.join(" "));
        else field.removeAttribute("aria-describedby");
      }
      error.remove();
    });
    document.querySelectorAll("#outlook [data-field]").forEach((link) => tell(`field-${link.dataset.field}`, link.textContent));
  };

  document.addEventListener("htmx:after:swap", () => { followAll(); tellAll(); });
  // Whoever asked for the check hears and sees what it found, wherever on the page the button is.
  document.addEventListener("htmx:finally:request", (event) => {
    if (event.target.id === "check") document.getElementById("found").focus();
  });
  const reveal = (field) => {
    for (let each = field?.parentElement; each; each = each.parentElement) if (each instanceof HTMLDetailsElement) each.open = true;
  };
  // A link to a field inside closed details opens them, and so does a value that the browser refuses to submit.
  form.addEventListener("invalid", (event) => reveal(event.target), true);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-field]");
    if (!link) return;
    const field = document.getElementById(link.hash.slice(1));
    reveal(field);
    field?.focus();
  });
  followAll();
  document.getElementById("refused")?.focus();
})();
