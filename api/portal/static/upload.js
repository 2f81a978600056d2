// Uploads in parts: hashed and sent slice by slice, held by nothing but the file itself. What was sent stays sent: the
// same files announced once more go on where they were.
import { sha256 } from "./vendor/noble-hashes/sha2.js";
import { bytesToHex } from "./vendor/noble-hashes/utils.js";

const HASHED_AT_ONCE = 2 ** 20;
const SENT_AT_ONCE = 4 * 2 ** 20; // small enough to see it move
const MOST_PARTS = 9000; // of a file
const PASSING = [408, 502, 503, 504];
const LONGEST_WAIT = 15_000;

const form = document.getElementById("upload");
const sending = document.getElementById("sending");
const words = document.getElementById("sending-words");
const progress = document.getElementById("sending-progress");
const share = document.getElementById("sending-share");
const pauseButton = document.getElementById("pause");

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail);
    this.status = status;
    this.problem = problem;
  }
}

// Pausing: what is under way is dropped, what comes next waits.
let going = Promise.resolve();
let go = null;
let stop = new AbortController();
pauseButton.addEventListener("click", () => {
  if (go) {
    go();
    go = null;
  } else {
    going = new Promise((resolve) => (go = resolve));
    stop.abort();
    stop = new AbortController();
    say("Paused.");
  }
  pauseButton.textContent = go ? "Go on" : "Pause";
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  clearFaults();
  sending.classList.remove("hidden");
  try {
    const created = await upload();
    location.assign(`/portal/${form.dataset.noun}/${created.id}`);
  } catch (error) {
    sending.classList.add("hidden");
    showFault(error);
    button.disabled = false;
  }
});

// A folder that is dropped on the form is chosen as its files are, and names the model where nothing else does.
if (form.dataset.kind === "model") {
  document.getElementById("drop-hint").classList.remove("hidden");
  form.addEventListener("dragover", (event) => {
    event.preventDefault();
    form.classList.add("drop");
  });
  form.addEventListener("dragleave", () => form.classList.remove("drop"));
  form.addEventListener("drop", async (event) => {
    event.preventDefault();
    form.classList.remove("drop");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const inside = await Promise.all(entries.map((each) => (each.isDirectory ? entriesOf(each) : [each])));
    const dropped = new DataTransfer();
    for (const each of inside.flat()) {
      if (each.isFile) dropped.items.add(await new Promise((resolve, reject) => each.file(resolve, reject)));
    }
    form.elements.files.files = dropped.files;
    const name = form.elements.name;
    if (!name.value && entries[0]?.isDirectory) name.value = sendable(entries[0].name).toLowerCase();
    document.getElementById("notices").textContent = `${dropped.files.length} ${dropped.files.length === 1 ? "file is" : "files are"} chosen.`;
  });
}

// A reader gives some entries at a time, and none at the end.
async function entriesOf(folder) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return all;
    all.push(...some);
  }
}

async function upload() {
  const files = chosen();
  const fields = {};
  for (const [name, value] of new FormData(form)) {
    if (typeof value === "string" && value.trim() && name !== "csrf") fields[name] = value.trim();
  }
  const total = [...files.values()].reduce((sum, file) => sum + file.size, 0);
  let done = 0;
  const announced = [];
  for (const [path, file] of files) {
    say(`Reading ${path} to know its SHA-256.`);
    const digest = await hashed(file, (bytes) => show((done += bytes), total));
    announced.push({ path, bytes: file.size, sha256: digest });
  }
  const body = JSON.stringify({ ...fields, kind: form.dataset.kind, files: announced });
  const opened = await call("POST", "/portal/uploads", body, "application/json");
  done = opened.files.reduce((sum, file) => sum + file.received, 0);
  if (done && done < total) say(`${size(done)} are there already: going on.`);
  show(done, total);
  // Small ones first: what is refused for its config is refused before the weights are sent.
  for (const file of opened.files.sort((one, other) => one.bytes - other.bytes)) {
    if (file.received < file.bytes) say(`Sending ${file.path}.`);
    await sendFile(opened, file, files.get(file.path), (bytes) => show((done += bytes), total));
  }
  say("All is there. The service checks it.");
  return call("POST", `/portal/uploads/${opened.id}/complete`);
}

async function sendFile(upload, file, content, advance) {
  const most = Math.min(upload.part_bytes, Math.max(SENT_AT_ONCE, Math.ceil(file.bytes / MOST_PARTS)));
  let received = file.received;
  while (received < file.bytes) {
    const address = `/portal/uploads/${upload.id}/files/${file.path}?offset=${received}`;
    const before = received;
    try {
      received = (await call("PUT", address, content.slice(received, received + most))).received;
    } catch (error) {
      if (error.problem?.code !== "offset_mismatch") throw error;
      received = error.problem.received; // an answer was lost, or another browser sends the same
    }
    advance(received - before);
  }
}

async function hashed(file, advance) {
  const hash = sha256.create();
  for (let start = 0; start < file.size; start += HASHED_AT_ONCE) {
    await going;
    const bytes = new Uint8Array(await file.slice(start, start + HASHED_AT_ONCE).arrayBuffer());
    hash.update(bytes);
    advance(bytes.length);
  }
  return bytesToHex(hash.digest());
}

// A call of the service; lost connections and passing troubles are waited out.
async function call(method, address, body = undefined, type = "application/octet-stream") {
  for (let wait = 1000; ; wait = Math.min(wait * 2, LONGEST_WAIT)) {
    await going;
    const { signal } = stop;
    try {
      const headers = { Accept: "application/json", "X-CSRF-Token": form.elements.csrf.value };
      if (body !== undefined) headers["Content-Type"] = type;
      const response = await fetch(address, { method, headers, body, signal });
      if (response.ok) return await response.json();
      const detail = `The service answered ${response.status} ${response.statusText}`;
      const problem = await response.json().catch(() => ({ detail })); // a proxy's words are no JSON
      const passes = PASSING.includes(response.status) || problem.code === "rate_limited";
      if (!passes) throw new Refused(response.status, problem);
    } catch (error) {
      if (error instanceof Refused) throw error;
    }
    if (signal.aborted) continue;
    say("The service cannot be reached: trying again.");
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

// The files that belong to a model; where no weights are among them, what else may hold them, and where there is
// nothing of a model, all: for the service to say why not.
function chosen() {
  const files = [...form.elements.files.files];
  const named = (patterns) => files.filter((file) => patterns.split(" ").some((each) => fits(file.name, each)));
  const weights = named("*.safetensors").length > 0;
  const kept = [...named(form.dataset.takes), ...(weights ? [] : named(form.dataset.refuses))];
  return new Map((kept.length ? kept : files).map((file) => [sendable(file.name), file]));
}

function fits(name, pattern) {
  return pattern.startsWith("*") ? name.endsWith(pattern.slice(1)) : name === pattern;
}

function sendable(name) {
  return name.replace(/[^A-Za-z0-9._-]|^[.-]/g, "_").slice(-200);
}

function say(text) {
  words.textContent = text;
}

function show(done, total) {
  progress.value = total ? done / total : 1;
  share.textContent = `${size(done)} of ${size(total)}`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"]; // as the server's `secateur_wire.sizes.size`
  const unit = Math.min(bytes ? Math.floor(Math.log10(bytes) / 3) : 0, units.length - 1);
  return `${(bytes / 1000 ** unit).toFixed(unit ? 1 : 0)} ${units[unit]}`;
}

// Errors as the server's own pages show them: a summary first, the words at the field too.
function showFault(error) {
  const summary = document.createElement("div");
  summary.className = "notice error summary from-script";
  summary.setAttribute("role", "alert");
  const title = document.createElement("h2");
  title.textContent = "This could not be done";
  const said = document.createElement("p");
  summary.append(title, said);
  const field = form.elements[(error.problem?.param ?? "").split(".")[0]];
  if (error.status === 401) {
    said.textContent = "Your session has expired or was ended. Sign in, and upload the same again: it goes on where it was. ";
    said.append(link(`/portal/sign-in?then=${encodeURIComponent(location.pathname)}`, "Sign in"));
  } else if (field instanceof HTMLElement && field.id) {
    said.append(link(`#${field.id}`, error.message));
    const notice = document.createElement("p");
    notice.id = `${field.id}-error`;
    notice.className = "error from-script";
    notice.textContent = error.message;
    field.after(notice);
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", `${notice.id} ${field.id}-hint`);
    field.parentElement.classList.add("has-error");
  } else {
    said.textContent = error.message;
  }
  form.before(summary);
  summary.scrollIntoView({ block: "center" });
}

function clearFaults() {
  for (const each of document.querySelectorAll(".from-script, .notice.error, .field > .error")) each.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.setAttribute("aria-describedby", `${field.id}-hint`);
    field.parentElement.classList.remove("has-error");
  }
}

function link(href, text) {
  const anchor = document.createElement("a");
  anchor.href = href;
  anchor.textContent = text;
  return anchor;
}
