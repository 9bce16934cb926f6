// What the pages do by themselves: look again when something has changed, and keys. Everything works without it.
"use strict";
const root = document.body.dataset.root || "";
const topics = new Set((document.body.dataset.topics || "").split(" ").filter(Boolean));
const chip = document.getElementById("chip");
const POLL_MS = 30000;
let tag = "", stream = null, isReconnecting = false, isWaiting = false, isReading = false, readAt = Date.now(), lastRead = 0, timer = 0;

const live = () => document.getElementById("live");

// --- look again ------------------------------------------------------------------------------------------------------
function isBusy() {
  const area = live();
  if (!area) return false;
  if (area.querySelector("details.act[open]")) return true;
  for (const one of area.querySelectorAll("input, textarea, select")) {
    if (one.type === "checkbox" || one.type === "radio" ? one.checked !== one.defaultChecked
      : one.tagName === "SELECT" ? [...one.options].some((option) => option.selected !== option.defaultSelected && (option.defaultSelected || option.index > 0))
      : one.value !== one.defaultValue) return true;
  }
  return false;
}

function show() {
  if (!chip || !topics.size) return;
  const age = Math.round((Date.now() - readAt) / 1000);
  const banner = document.querySelector("#live [data-age]");
  let text = "Live", kind = "live";
  if (isBusy()) { text = isWaiting ? "Paused · there is news" : "Paused"; kind = "paused"; }
  else if (banner) { text = `Data ${Number(banner.dataset.age) + age} s old`; kind = "late"; }
  else if (age > 40) { text = `Data ${age} s old`; kind = "late"; }
  else if (isReconnecting) { text = "Reconnecting"; kind = "paused"; }
  chip.hidden = false;
  if (chip.textContent !== text) chip.textContent = text;
  chip.className = `chip ${kind}`;
}

async function look() {
  if (isReading || document.hidden || !topics.size) return;
  if (isBusy()) { isWaiting = true; show(); return; }
  const since = Date.now() - lastRead;
  if (since < 1000) { clearTimeout(timer); timer = setTimeout(look, 1000 - since); return; }
  isReading = true; isWaiting = false; lastRead = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { "X-Partial": "1", ...(tag ? { "If-None-Match": tag } : {}) }, redirect: "error" });
    if (answer.status === 401 || answer.status === 403) { location.reload(); return; }
    if (answer.status === 200) {
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      if (fresh && !isBusy()) { swap(fresh); tag = answer.headers.get("ETag") || ""; }
      readAt = Date.now();
    } else if (answer.status === 304) readAt = Date.now();
  } catch { /* the chip says how old it is */ } finally { isReading = false; show(); }
}

function swap(fresh) {
  const old = live(), at = document.activeElement, path = at && old.contains(at) ? pathOf(at, old) : null;
  const row = [...rows()].findIndex((one) => one.classList.contains("here"));
  const isOpen = [...old.querySelectorAll("details")].map((one) => one.open);
  fresh.querySelectorAll("details").forEach((one, n) => { if (isOpen[n]) one.open = true; });
  old.replaceWith(document.adoptNode(fresh));
  if (path) { const again = at.id ? document.getElementById(at.id) : path.reduce((one, n) => one && one.children[n], live()); again?.focus({ preventScroll: true }); }
  if (row >= 0) rows()[row]?.classList.add("here");
}

function pathOf(element, top) {
  const path = [];
  for (let one = element; one !== top; one = one.parentElement) path.unshift([...one.parentElement.children].indexOf(one));
  return path;
}

function connect() {
  if (!topics.size || document.hidden || stream) return;
  stream = new EventSource(`${root}/live`);
  stream.addEventListener("hello", () => { if (isReconnecting) look(); isReconnecting = false; show(); });
  stream.addEventListener("changed", (event) => { if (event.data.split(" ").some((one) => topics.has(one))) look(); });
  stream.addEventListener("bye", () => { stream.close(); stream = null; setTimeout(connect, 50); });
  stream.onerror = () => {
    isReconnecting = true; show();
    if (stream && stream.readyState === EventSource.CLOSED) { stream = null; setTimeout(connect, 5000); }
  };
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) { stream?.close(); stream = null; } else { connect(); look(); }
});
addEventListener("pagehide", () => { stream?.close(); stream = null; });
setInterval(show, 1000);
setInterval(look, POLL_MS);
connect(); show();

// --- small things ----------------------------------------------------------------------------------------------------
document.addEventListener("click", (event) => {
  for (const one of document.querySelectorAll("details.who[open]")) if (!one.contains(event.target)) one.open = false;
  const copy = event.target.closest("[data-copy]");
  if (copy) navigator.clipboard?.writeText(copy.dataset.copy).then(() => { copy.textContent = "Copied"; });
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) document.querySelectorAll("#live [name=ids]").forEach((one) => { one.checked = event.target.checked; });
  if (event.target.matches("[data-all], [name=ids]")) counted();
  show();
});
document.addEventListener("toggle", show, true);
document.addEventListener("input", show);
document.addEventListener("submit", (event) => {  // a second press of the same button is none
  if (event.target.method === "post") setTimeout(() => event.target.querySelectorAll("button").forEach((one) => { one.disabled = true; }));
});
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
function counted() {
  const many = document.querySelectorAll("#live [name=ids]:checked").length;
  document.querySelectorAll("[data-count]").forEach((one) => { one.textContent = many ? `${many} selected` : "Nothing selected"; });
  document.querySelectorAll("[data-needs-selection]").forEach((one) => { one.disabled = !many || one.hasAttribute("data-off"); });
}
counted();

// --- keys ------------------------------------------------------------------------------------------------------------
const rows = () => document.querySelectorAll("#live [data-row]");
const help = document.getElementById("help"), off = document.getElementById("keys-off");
if (off) {
  off.checked = localStorage.getItem("keys") === "off";
  off.addEventListener("change", () => localStorage.setItem("keys", off.checked ? "off" : "on"));
}
let isGoing = false;
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input:not([type=checkbox]), textarea, select, dialog") || event.ctrlKey || event.metaKey || event.altKey;
  if (event.key === "Escape") document.querySelectorAll("details.who[open], details.act[open]").forEach((one) => { one.open = false; one.querySelector("summary").focus(); });
  if (isTyping || (off?.checked && event.key !== "?")) return;
  const all = [...rows()], at = all.findIndex((one) => one.classList.contains("here"));
  const move = (to) => { all[at]?.classList.remove("here"); const one = all[Math.max(0, Math.min(all.length - 1, to))]; one?.classList.add("here"); one?.querySelector("a")?.focus(); one?.scrollIntoView({ block: "nearest" }); };
  if (isGoing) {
    isGoing = false;
    const found = document.querySelector(`nav.side a[data-key="${CSS.escape(event.key)}"]`);
    if (found) { event.preventDefault(); location.assign(found.href); }
  } else if (event.key === "g") { isGoing = true; setTimeout(() => { isGoing = false; }, 4000); }
  else if (event.key === "/") { event.preventDefault(); document.getElementById("find")?.focus(); }
  else if (event.key === "?") help?.showModal();
  else if (event.key === "j") move(at + 1);
  else if (event.key === "k") move(at < 0 ? 0 : at - 1);
  else if (event.key === "x" && at >= 0) all[at].querySelector("[name=ids]")?.click();
  else if (event.key === "Enter" && at >= 0 && event.target === document.body) all[at].querySelector("a")?.click();
});
