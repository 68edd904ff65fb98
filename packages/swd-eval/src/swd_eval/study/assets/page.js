"use strict";
const STUDY = JSON.parse(document.getElementById("study").textContent);
const PAIRS = new Map(STUDY.pairs.map((pair) => [pair.id, pair]));
const CRITERIA = STUDY.criteria;
const $ = (id) => document.getElementById(id);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const token = new URLSearchParams(location.search).get("rater");
// Not crypto.randomUUID, which a page over plain http lacks.
const unique = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");

const kept = {
  read(name) { try { return JSON.parse(localStorage.getItem(`swd-study/${STUDY.id}/${name}`)); } catch { return null; } },
  write(name, value) {
    try { localStorage.setItem(`swd-study/${STUDY.id}/${name}`, JSON.stringify(value)); return true; } catch { return false; }
  },
};

/* Votes of two lists without repetition: another tab may have added to what this one has read. */
const joined = (one, other) => [...new Map([...one, ...other].map((vote) => [vote.id, vote])).values()];

/* Votes that go to a server: kept in the browser until acknowledged, sent one by one in order. */
class Remote {
  constructor(rater) { this.rater = rater; this.waiting = kept.read(`${rater}/waiting`) || []; this.sending = null; this.done = new Set(); }
  async load() {
    const ask = () => this.request(`api/state?rater=${encodeURIComponent(this.rater)}`);
    this.status = await ask();
    if (!this.status.refused && this.waiting.length) { await this.settled(); this.status = await ask(); }
    return this.status;
  }
  add(vote) { this.waiting.push(vote); this.keep(); this.settled(); }
  async settled() {
    do {
      this.sending ??= this.send().finally(() => { this.sending = null; });
      await this.sending;
    } while (this.waiting.length);
    return this.status;
  }
  async send() {
    while (this.waiting.length) {
      const status = await this.request("api/vote", { method: "POST", body: JSON.stringify(this.waiting[0]), headers: { "Content-Type": "application/json" } });
      if (status.refused && ![400, 409].includes(status.refused)) { // of a proxy, or of another study's server: not of this vote
        notice("The server takes no answers just now. Your answers are kept and will be sent.");
        await wait(2000);
        continue;
      }
      this.done.add(this.waiting.shift().id); this.keep();
      if (status.refused) { location.reload(); await new Promise(() => {}); } // the pair went to others: start from what the server knows
      this.status = status;
    }
  }
  keep() {
    const all = joined(kept.read(`${this.rater}/waiting`) || [], this.waiting);
    kept.write(`${this.rater}/waiting`, all.filter((vote) => !this.done.has(vote.id)));
  }
  async request(path, options) {
    for (;;) {
      let seconds = 2;
      try {
        const answer = await fetch(path, { cache: "no-store", ...options });
        if (answer.status < 500) { notice(""); return answer.ok ? await answer.json() : { refused: answer.status }; }
        seconds = Number(answer.headers.get("Retry-After")) || 2;
        notice("The server cannot save just now. Your answers are kept and will be sent.");
      } catch { // offline
        notice("No connection. Your answers are kept and will be sent.");
      }
      await wait(1000 * seconds);
    }
  }
}

/* Votes of a page without a server: kept in the browser, saved as a file. */
class Local {
  constructor(rater) { this.rater = rater; this.votes = kept.read(`${rater}/votes`) || []; }
  async load() { return { votes: this.votes.map((v) => [v.pair, v.criterion, v.answer]), ...await this.settled() }; }
  add(vote) {
    this.votes = joined(kept.read(`${this.rater}/votes`) || [], [...this.votes, vote]);
    if (!kept.write(`${this.rater}/votes`, this.votes)) notice("This browser keeps nothing: save your votes before you close the page.");
  }
  async settled() {
    const finished = new Set([...answers.keys()].map((key) => key.split("/")[0]).filter(isFinished));
    const left = STUDY.pairs.filter((pair) => !finished.has(pair.id));
    return { pair: left.length ? left[0].id : null, left: left.length };
  }
  save() {
    this.votes = joined(kept.read(`${this.rater}/votes`) || [], this.votes);
    const lines = this.votes.map((vote) => JSON.stringify({ study: STUDY.id, ...vote }) + "\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
    link.download = `votes-${this.rater}.jsonl`;
    link.click();
  }
}

let backend, at = 0, locked = true, busy = false, shown = null;
const order = [], answers = new Map(); // pairs as this rater meets them; "pair/criterion" to answer
const keyOf = (index) => `${order[Math.floor(index / CRITERIA.length)]}/${CRITERIA[index % CRITERIA.length].id}`;
const isFinished = (pair) => CRITERIA.every((criterion) => answers.has(`${pair}/${criterion.id}`));

async function start() {
  const rater = token || kept.read("rater") || `local-${unique()}`;
  backend = location.protocol === "file:" ? new Local(rater) : new Remote(rater);
  let state = await backend.load();
  if (state.refused === 404) { backend = new Local(rater); state = await backend.load(); } // a host of files alone
  if (state.refused) return end("This link is not valid", "Please use the link that you were given.");
  const local = backend instanceof Local;
  if (local) kept.write("rater", rater);
  $("download").hidden = !local;
  for (const [pair, criterion, answer] of state.votes) answers.set(`${pair}/${criterion}`, answer);
  if (local) state = await backend.load();
  for (const [pair] of state.votes) if (isFinished(pair) && !order.includes(pair)) order.push(pair);
  for (const key of [...answers.keys()]) if (![...order, state.pair].includes(key.split("/")[0])) answers.delete(key);
  if (!state.votes.length) $("intro").showModal();
  proceed(state);
}

/* Go to the first open question; where none is left in the known pairs, to the pair that the status names. */
function proceed(status) {
  if (status.pair && !order.includes(status.pair)) order.push(status.pair);
  const total = order.length * CRITERIA.length;
  for (at = 0; at < total && answers.has(keyOf(at)); at++);
  $("progress").max = (order.filter(isFinished).length + status.left) || 1;
  if (at < total) show(); else finish(status);
}

function show() {
  const index = at % CRITERIA.length, criterion = CRITERIA[index], pair = PAIRS.get(keyOf(at).split("/")[0]);
  $("main").hidden = false; $("end").hidden = true;
  $("question").textContent = criterion.question;
  $("hint").textContent = criterion.hint;
  restart($("question"));
  $("steps").replaceChildren(...CRITERIA.map((c, i) => Object.assign(document.createElement("li"), {
    textContent: c.name, className: i === index ? "now" : answers.has(`${pair.id}/${c.id}`) ? "done" : "",
  })));
  const given = answers.get(keyOf(at));
  for (const button of $("answers").children) button.setAttribute("aria-pressed", String(given === Number(button.dataset.answer)));
  $("back").disabled = at === 0;
  count(Math.floor(at / CRITERIA.length) + 1);
  if (shown === pair.id) lock(false); else load(pair);
}

function count(number) {
  $("progress").value = answers.size / CRITERIA.length;
  $("count").textContent = `Pair ${number} of ${Math.max($("progress").max, number)}`;
}

async function load(pair) {
  lock(true);
  shown = pair.id;
  $("prompt").textContent = pair.prompt; // as text: a prompt may hold HTML
  $("prompt").scrollTop = 0;
  const frames = [...document.querySelectorAll(".zoom")];
  const media = pair.media.map((name, i) => element(name, i + 1));
  frames.forEach((frame, i) => { frame.classList.add("waiting"); frame.replaceChildren(media[i]); });
  try {
    await Promise.all(media.map(ready));
    if (shown !== pair.id) return;
    frames.forEach((frame) => frame.classList.remove("waiting"));
    lock(false);
  } catch {
    if (shown !== pair.id) return;
    notice(`The ${STUDY.kind}s could not be loaded. Trying again.`);
    await wait(2000);
    if (shown === pair.id) { notice(""); load(pair); }
  }
}

function element(name, number) {
  const made = document.createElement(STUDY.kind === "video" ? "video" : "img");
  if (STUDY.kind === "video") Object.assign(made, { muted: true, loop: true, autoplay: true, playsInline: true, ariaLabel: `Video ${number}` });
  else made.alt = `Image ${number}`;
  made.src = `media/${name}`;
  return made;
}

const ready = (made) => made.decode ? made.decode() : new Promise((done, failed) => { made.oncanplay = done; made.onerror = failed; });

function lock(on) { locked = on; for (const button of $("answers").children) button.disabled = on; }
function restart(node) { node.classList.remove("fresh"); void node.offsetWidth; node.classList.add("fresh"); }
function notice(text) { $("notice").textContent = text; $("notice").hidden = !text; }

async function answer(value) {
  if (locked) return;
  lock(true);
  const [pair, criterion] = keyOf(at).split("/");
  answers.set(keyOf(at), value);
  backend.add({ id: unique(), rater: backend.rater, pair, criterion, answer: value });
  const open = order.some((known) => !isFinished(known));
  busy = true;
  const status = open ? { pair: null, left: $("progress").max - order.filter(isFinished).length } : await backend.settled();
  busy = false;
  proceed(status);
}

function back() {
  if (at === 0 || busy) return;
  at--;
  show();
}

function finish(status) {
  if (status.wait) {
    end("Nothing to do just now", "The pairs that are left are with other people. This page looks again every half minute.");
    wait(30000).then(async () => { if ($("main").hidden) proceed(await backend.load()); });
  } else if (backend instanceof Local) end("All done, thank you", "Save your votes with the button above and send the file to whoever asked you.");
  else end("All done, thank you", "Every answer is saved. You can close this page, or go back to change your last answers.");
  $("back").disabled = !order.length;
  $("progress").value = status.wait ? $("progress").value : $("progress").max;
  $("count").textContent = `${order.length} pairs done`;
}

function end(title, text) {
  shown = null; lock(true);
  $("main").hidden = true; $("end").hidden = false;
  $("end-title").textContent = title; $("end-text").textContent = text;
  $("end-title").focus();
}

function zoom(number) {
  if (!shown) return;
  const stage = $("stage");
  stage.classList.remove("real");
  stage.replaceChildren(element(PAIRS.get(shown).media[number - 1], number));
  stage.dataset.number = number;
  $("zoom-name").textContent = stage.firstChild.alt || stage.firstChild.ariaLabel;
  if (!$("zoomed").open) $("zoomed").showModal();
}
const zoomOther = () => zoom(3 - Number($("stage").dataset.number));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || $("intro").open) return;
  if (event.target === $("prompt") && event.key.startsWith("Arrow")) return; // scrolls
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const inZoom = { ArrowLeft: zoomOther, ArrowRight: zoomOther, z: () => $("stage").classList.toggle("real") };
  const outside = {
    1: () => answer(1), 2: () => answer(2), 0: () => answer(0), z: () => zoom(1), Backspace: back,
    ArrowLeft: () => answer(1), ArrowRight: () => answer(2), ArrowDown: () => answer(0),
  };
  const act = ($("zoomed").open ? inZoom : outside)[key];
  if (act) { event.preventDefault(); act(); }
});
for (const button of $("answers").children) button.addEventListener("click", () => answer(Number(button.dataset.answer)));
document.querySelectorAll(".zoom").forEach((button, i) => button.addEventListener("click", () => zoom(i + 1)));
$("back").addEventListener("click", back);
$("help").addEventListener("click", () => $("intro").showModal());
$("download").addEventListener("click", () => backend.save());
$("stage").addEventListener("click", () => $("stage").classList.toggle("real"));
$("zoom-other").addEventListener("click", zoomOther);
$("zoom-close").addEventListener("click", () => $("zoomed").close());
start();
