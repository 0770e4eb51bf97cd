// The page: uploads, the list that follows them, and the player. No framework, no dependency, no inline style.
const $ = (id) => document.getElementById(id);
const TYPES = { mp4: "video/mp4", m4v: "video/mp4", webm: "video/webm" };
const IN_FLIGHT = new Set(["uploaded", "validated", "transcoding"]);
const LABELS = {
  awaiting_upload: "Unfinished", uploading: "Uploading", uploaded: "Checking", validated: "In line", transcoding: "Transcoding",
  ready: "Ready", rejected: "Refused", failed: "Failed",
};
const HINTS = {
  rejected: "Nothing of it was decoded.",
  failed: "Delete it and upload it again, or try another export.",
  awaiting_upload: "The upload did not finish. Choose the same file again to go on where it stopped; what was sent is kept for a day.",
};
const PARTS_AT_ONCE = 2, TRIES = 10, PAUSE_MS = 500, PAUSE_MS_MAX = 20000, STALL_MS = 30000;
const FAST_MS = 1000, SLOW_MS = 10000, GRANT_MS = 10 * 60 * 1000, AT_ONCE = 2, SETTLE_MS = 60 * 1000;

const state = { videos: new Map(), cards: new Map(), uploads: new Map(), grants: new Map(), sent: new Map(), next: null, timer: 0, playing: null };

// ---- Talking to the API -------------------------------------------------------------------------------------------

class Problem extends Error {
  constructor(error, hint) { super(error); this.hint = hint || ""; }
}

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      ...options, headers: { "Accept": "application/json", "X-Requested-With": "fetch", ...options.headers },
    });
  } catch {
    throw new Problem("The server cannot be reached.", "Check your connection; this page keeps trying.");
  }
  if (response.status === 401) {
    location.assign("/auth/login?return=/");
    return new Promise(() => {});
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) {
    throw new Problem(answer?.error || `The server answered ${response.status}.`, answer?.hint || "Try again in a moment.");
  }
  return answer;
}

const send = (method, path, value) =>
  ask(path, { method, headers: { "Content-Type": "application/json" }, body: value && JSON.stringify(value) });

/** Addresses to watch a ready video, kept for a while shorter than they live. */
function grant(id) {
  const kept = state.grants.get(id);
  if (kept && kept.until > Date.now()) return kept.promise;
  const promise = ask(`/api/videos/${id}/watch`);
  state.grants.set(id, { promise, until: Date.now() + GRANT_MS });
  promise.catch(() => state.grants.delete(id));
  return promise;
}

// ---- Words --------------------------------------------------------------------------------------------------------

function clock(seconds) {
  const whole = Math.round(seconds), pad = (n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

function size(bytes) {
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < 3; unit++) bytes /= 1000;
  return `${bytes >= 10 || unit === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

/** A file's name without the ending that says nothing to a person. */
const title = (name) => name.replace(/(.)\.(mp4|m4v|webm)$/i, "$1");

const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
function when(stamp) {
  const seconds = (new Date(stamp) - Date.now()) / 1000;
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]]) {
    if (-seconds >= length) return ago.format(Math.round(seconds / length), unit);
  }
  return "just now";
}

// ---- The list -----------------------------------------------------------------------------------------------------

function card(id) {
  const known = state.cards.get(id);
  if (known) return known;
  const root = $("card").content.firstElementChild.cloneNode(true);
  const find = (selector) => root.querySelector(selector);
  const parts = {
    root, still: find(".still"), image: find("img"), ring: find(".ring"), length: find(".length"), name: find("h3"), chip: find(".chip"),
    progress: find("progress"), why: find(".why"), facts: find(".facts"), cancel: find(".cancel"), resume: find(".resume"), trace: find(".trace"), remove: find(".remove"),
  };
  parts.still.addEventListener("click", () => play(id));
  parts.remove.addEventListener("click", () => remove(id));
  parts.cancel.addEventListener("click", () => state.uploads.get(id)?.stop.abort());
  parts.resume.addEventListener("click", () => $("file").click());
  state.cards.set(id, parts);
  return parts;
}

function draw(video) {
  const it = card(video.id), upload = state.uploads.get(video.id);
  const shown = upload ? "uploading" : video.state;
  const busy = shown === "uploading" || IN_FLIGHT.has(shown);
  const counted = shown === "uploading" || shown === "transcoding";
  const done = upload ? upload.percent : video.progress;
  it.root.dataset.video = video.id;
  it.root.dataset.state = shown;
  it.root.classList.toggle("ready", shown === "ready");
  it.root.classList.toggle("busy", busy);
  it.root.classList.toggle("waiting", busy && !counted);
  it.root.classList.toggle("bad", shown === "rejected" || shown === "failed");
  it.still.disabled = shown !== "ready";
  it.still.setAttribute("aria-label", shown === "ready" ? `Play ${video.name}` : `${video.name}: ${LABELS[shown]}`);
  it.name.textContent = title(video.name);
  it.name.title = video.name;
  it.chip.textContent = LABELS[shown] || shown;
  it.ring.style.setProperty("--done", done);
  it.ring.dataset.text = `${Math.floor(done)}%`;
  it.progress.hidden = !counted;
  it.progress.value = done;
  it.progress.setAttribute("aria-label", `${LABELS[shown]} ${video.name}`);
  it.length.textContent = video.duration_s ? clock(video.duration_s) : "";
  const why = upload || busy ? "" : [video.reason, HINTS[video.state]].filter(Boolean).map(sentence).join(" ");
  it.why.hidden = !why;
  it.why.textContent = why;
  const best = [...video.renditions].sort((a, b) => b.height - a.height)[0]?.name;
  it.facts.textContent = upload?.waiting ? `${Math.floor(done)}% sent · waiting for the connection` : upload
    ? `${size(upload.sent)} of ${size(video.size)}${upload.rate ? ` · ${size(upload.rate)}/s` : ""}`
    : [best || size(video.size), when(video.created_at)].join(" · ");
  it.cancel.hidden = !upload;
  it.resume.hidden = shown !== "awaiting_upload";
  it.remove.hidden = Boolean(upload);
  it.trace.hidden = Boolean(upload) || shown === "awaiting_upload";
  it.trace.href = `/console/traces?video=${encodeURIComponent(video.id)}`;
  if (shown === "ready" && video.poster && !it.image.src) poster(video.id, it.image);
  return it.root;
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

async function poster(id, image) {
  try {
    const { poster_url } = await grant(id);
    if (!poster_url) return;
    image.onload = () => { image.hidden = false; };
    image.src = poster_url;
  } catch { /* A card without a picture is a card. */ }
}

function drawAll() {
  const newest = [...state.videos.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  const grid = $("grid");
  newest.forEach((video, index) => {
    const root = draw(video);
    if (grid.children[index] !== root) grid.insertBefore(root, grid.children[index] || null);
  });
  for (const [id, it] of state.cards) {
    if (!state.videos.has(id)) { it.root.remove(); state.cards.delete(id); }
  }
  $("empty").hidden = newest.length > 0 || !$("notice").hidden;
  $("more").hidden = !state.next;
  const ready = newest.filter((video) => video.state === "ready").length;
  const running = newest.filter((video) => state.uploads.has(video.id) || IN_FLIGHT.has(video.state)).length;
  if (newest.length) {
    const counts = [ready && `${ready} ready to play`, running && `${running} in the works`].filter(Boolean);
    $("summary").textContent = [counts.join(" · "), "Private to you"].filter(Boolean).map(sentence).join(" ");
  }
}

/** Takes a page of the list; the first page also says what is gone. */
function take(answer, first) {
  if (first) {
    const kept = new Set(answer.videos.map((video) => video.id));
    const oldest = answer.videos.at(-1)?.id || "";
    for (const id of state.videos.keys()) {
      if (!kept.has(id) && !state.uploads.has(id) && (id > oldest || !answer.next_before)) state.videos.delete(id);
    }
    if (!state.paged) state.next = answer.next_before;
  } else {
    state.paged = true;
    state.next = answer.next_before;
  }
  for (const video of answer.videos) {
    settle(video);
    state.videos.set(video.id, video);
  }
  drawAll();
}

/** What this page has just sent is uploaded, though the catalogue may hear of it a moment later. */
function settle(video) {
  if (video?.state === "awaiting_upload" && state.sent.get(video.id) > Date.now()) video.state = "uploaded";
}

function notice(problem) {
  const box = $("notice");
  box.hidden = !problem;
  box.replaceChildren();
  if (!problem) return;
  box.append(problem.message);
  if (problem.hint) box.append(Object.assign(document.createElement("small"), { textContent: problem.hint }));
}

async function poll() {
  clearTimeout(state.timer);
  if (!document.hidden) {
    try {
      take(await ask("/api/videos?limit=24"), true);
      if (state.polling === false) notice(null);
      state.polling = true;
    } catch (problem) {
      state.polling = false;
      notice(problem);
    }
  }
  const flying = [...state.videos.values()].some((video) => IN_FLIGHT.has(video.state)) || state.uploads.size > 0;
  state.timer = setTimeout(poll, flying ? FAST_MS : SLOW_MS);
}

// ---- Uploads ------------------------------------------------------------------------------------------------------

const line = [];
let running = 0;

function enqueue(files) {
  notice(null);
  line.push(...files);
  begin();
}

function begin() {
  while (running < AT_ONCE && line.length) {
    running += 1;
    upload(line.shift()).catch(notice).finally(() => { running -= 1; begin(); });
  }
}

async function upload(file) {
  const type = file.type || TYPES[file.name.split(".").pop().toLowerCase()] || "application/octet-stream";
  const id = await unfinished(file, type) || await announce(file, type);
  const going = { stop: new AbortController(), percent: 0, sent: 0, rate: 0, waiting: false };
  state.uploads.set(id, going);
  drawAll();
  try {
    await transfer(id, file, going);
    state.sent.set(id, Date.now() + SETTLE_MS);
    settle(state.videos.get(id));
  } catch (problem) {
    if (!going.stop.signal.aborted) throw new Problem(`${file.name}: ${problem.message}`, problem.hint);
    state.videos.delete(id);
    send("DELETE", `/api/videos/${id}`).catch(() => {});
  } finally {
    state.uploads.delete(id);
    drawAll();
    poll();
  }
}

async function announce(file, type) {
  const made = await send("POST", "/api/videos", { name: file.name, size: file.size, type }).catch((problem) => {
    problem.message = `${file.name}: ${problem.message}`;
    throw problem;
  });
  state.videos.set(made.id, {
    id: made.id, name: file.name, size: file.size, type, state: "awaiting_upload", progress: 0, reason: null,
    created_at: new Date().toISOString(), duration_s: null, renditions: [], poster: null,
  });
  return made.id;
}

/** What the store has of a video, and addresses for the next parts that it has not. */
const plan = (id) => send("POST", `/api/videos/${id}/upload`);

const slice = (file, part_bytes, number) => file.slice((number - 1) * part_bytes, number * part_bytes);

/** A video whose upload stopped and of which every part that the store has is a part of this file. */
async function unfinished(file, type) {
  const alike = (video) => video.state === "awaiting_upload" && video.name === file.name && video.size === file.size
    && video.type === type && !state.uploads.has(video.id);
  for (const video of [...state.videos.values()].filter(alike)) {
    const there = await plan(video.id).catch(() => null);
    if (there && !there.complete && await same(file, there)) return video.id;
  }
  return null;
}

async function same(file, { stored, part_bytes }) {
  for (const { number, sha256 } of stored) {
    const digest = await crypto.subtle.digest("SHA-256", await slice(file, part_bytes, number).arrayBuffer());
    if ([...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("") !== sha256) return false;
  }
  return true;
}

/** Sends what the store has not, and goes on after an interruption with what is then missing, until all is there. */
async function transfer(id, file, going) {
  let failures = 0, had = -1;
  const show = (more) => { Object.assign(going, more); draw(state.videos.get(id)); };
  for (;;) {
    try {
      const next = await plan(id);
      if (next.complete) return;
      if (next.stored.length > had) failures = 0;
      had = next.stored.length;
      show({ waiting: false });
      await parts(next, file, going, show);
    } catch (problem) {
      if (going.stop.signal.aborted) throw problem;
      failures += 1;
      if (failures > TRIES) throw new Problem(problem.message, "Choose the same file again to go on where it stopped.");
      show({ waiting: true, rate: 0 });
      await pause(Math.min(PAUSE_MS_MAX, PAUSE_MS * 2 ** failures) * (0.5 + Math.random() / 2), going.stop.signal);
    }
  }
}

/** Waits, but not longer than until the browser is online again. */
function pause(ms, stop) {
  return new Promise((resolve, reject) => {
    const done = () => { clearTimeout(timer); removeEventListener("online", done); resolve(); };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    stop.addEventListener("abort", () => { done(); reject(new Problem("the upload was cancelled.")); }, { once: true });
  });
}

/** Sends the parts of a plan, several at a time; the first that fails ends it once the others under way have ended. */
async function parts(next, file, going, show) {
  const before = next.stored.reduce((sum, { number }) => sum + slice(file, next.part_bytes, number).size, 0);
  const begun = performance.now(), sent = new Map(), line = [...next.parts];
  const progress = (number, bytes) => {
    sent.set(number, bytes);
    const now = [...sent.values()].reduce((sum, bytes) => sum + bytes, 0);
    const seconds = Math.max(0.2, (performance.now() - begun) / 1000);
    show({ sent: before + now, percent: ((before + now) / file.size) * 100, rate: now / seconds });
  };
  progress(0, 0);
  let failed = null;
  const work = async () => {
    for (let part; !failed && (part = line.shift());) {
      await put(part, slice(file, next.part_bytes, part.number), going.stop.signal, (bytes) => progress(part.number, bytes)).catch((problem) => {
        progress(part.number, 0);
        failed ||= problem;
      });
    }
  };
  await Promise.all(Array.from({ length: PARTS_AT_ONCE }, work));
  if (failed) throw failed;
}

/** Sends one part; XMLHttpRequest, since fetch tells nothing about an upload's progress. */
function put({ url }, bytes, stop, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const broke = () => reject(new Problem("the connection broke during the upload.", "Check your connection."));
    const stalled = () => { broke(); request.abort(); };
    let timer = setTimeout(stalled, STALL_MS);
    request.upload.onprogress = (event) => { clearTimeout(timer); timer = setTimeout(stalled, STALL_MS); progress(event.loaded); };
    request.onload = () => {
      if (request.status >= 200 && request.status < 300) { progress(bytes.size); return resolve(); }
      return reject(new Problem(`the upload was refused (${request.status}).`, "Try again."));
    };
    request.onerror = request.onabort = broke;
    request.onloadend = () => clearTimeout(timer);
    stop.addEventListener("abort", () => request.abort(), { once: true });
    request.open("PUT", url);
    request.send(bytes);
  });
}

// ---- Player -------------------------------------------------------------------------------------------------------

async function play(id) {
  const video = state.videos.get(id);
  if (video?.state !== "ready") return;
  try {
    const { renditions, poster_url } = await grant(id);
    state.playing = id;
    $("player-name").textContent = title(video.name);
    $("player-trace").href = `/console/traces?video=${encodeURIComponent(id)}`;
    $("video").poster = poster_url || "";
    const bestFirst = [...renditions].sort((a, b) => b.height - a.height);
    $("qualities").replaceChildren(...bestFirst.map((made) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: made.name });
      button.addEventListener("click", () => show(made, bestFirst));
      return button;
    }));
    $("player").showModal();
    show(bestFirst[0], bestFirst);
  } catch (problem) {
    notice(problem);
  }
}

/** Changes to a rendition and goes on where the other one was. */
function show(made, all) {
  const player = $("video"), at = player.currentTime, fresh = !player.currentSrc || player.readyState === 0;
  [...$("qualities").children].forEach((button, index) => button.setAttribute("aria-pressed", String(all[index] === made)));
  $("player-facts").textContent = `${made.width} × ${made.height} · ${clock(made.duration_s)} · ${size(made.bytes)}`;
  const paused = !fresh && player.paused;
  player.src = made.url;
  player.addEventListener("loadedmetadata", () => { if (!fresh) player.currentTime = at; }, { once: true });
  if (!paused) player.play().catch(() => { /* The browser wants a click first; the controls are there. */ });
}

$("player").addEventListener("close", () => {
  $("video").removeAttribute("src");
  $("video").load();
  state.playing = null;
});
$("video").addEventListener("error", () => {
  if (!state.playing || !$("video").getAttribute("src")) return;
  state.grants.delete(state.playing);
  $("player").close();
  notice(new Problem("This video cannot be played right now.", "Open it once more; its address may have run out."));
});
$("player-close").addEventListener("click", () => $("player").close());
$("player").addEventListener("click", (event) => { if (event.target === $("player")) $("player").close(); });

// ---- Deleting -----------------------------------------------------------------------------------------------------

function remove(id) {
  const video = state.videos.get(id), dialog = $("ask");
  $("ask-text").textContent = `“${video.name}” and everything made from it will be gone for good.`;
  dialog.returnValue = "no";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "yes") return;
    try {
      await send("DELETE", `/api/videos/${id}`);
      state.videos.delete(id);
      drawAll();
    } catch (problem) {
      notice(problem);
    }
  };
  dialog.showModal();
}

// ---- Beginning ----------------------------------------------------------------------------------------------------

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => { enqueue($("file").files); $("file").value = ""; });
let inside = 0;
for (const [name, step] of [["dragenter", 1], ["dragleave", -1]]) {
  addEventListener(name, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    inside = Math.max(0, inside + step);
    document.body.classList.toggle("dragging", inside > 0);
  });
}
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) enqueue(event.dataTransfer.files);
});
addEventListener("beforeunload", (event) => { if (state.uploads.size) event.preventDefault(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
$("more").addEventListener("click", async () => {
  try {
    take(await ask(`/api/videos?limit=24&before=${encodeURIComponent(state.next)}`), false);
  } catch (problem) {
    notice(problem);
  }
});
$("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", dark ? "light" : "dark");
});

/** The person's name: the page was given only who it is for. */
async function introduce() {
  const box = $("person");
  const me = await ask("/auth/me").catch(() => null);
  const name = me?.name || box.dataset.user;
  box.textContent = name;
  box.title = name;
  $("initial").textContent = [...name][0]?.toUpperCase() || "?";
}

introduce();
const first = JSON.parse($("first").textContent);
if (first.error) {
  notice(new Problem(first.error, first.hint));
  state.polling = false;
  poll();
} else {
  take(first, true);
  const flying = first.videos.some((video) => IN_FLIGHT.has(video.state));
  state.timer = setTimeout(poll, flying ? FAST_MS : SLOW_MS);
}
