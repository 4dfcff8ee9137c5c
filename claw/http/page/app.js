// The operator's page. Order of events: a token is asked for once; without credentials of an app the set-up comes first;
// then a stream of events draws what changes by itself, and the other parts are drawn when they are opened, and after
// each change that is made there. What is drawn anew keeps the place of whoever is in it: focus, opened details.
import { $, ApiFault, call, language, make, open, setLanguage, setToken, span, t, token } from "./core.js";
import { overview, trips } from "./overview.js";
import { setUp } from "./setup.js";
import * as work from "./work.js";

const RETRY_MS = [1000, 2000, 4000, 8000, 10000];
const TABS = ["overview", "trips", "dead", "chats", "policy", "usage", "audit", "restart"];
const LIVE = { overview, trips };

let status = null;
let tab = "overview";
let stream = null;
let drawn = 0;
let labelled = "";

function label() {
  document.documentElement.lang = language();
  for (const node of document.querySelectorAll("[data-word]")) node.textContent = t(node.dataset.word);
  $("lang").textContent = t("lang");
  // An event a second must not take the focus out of the hands of whoever goes by keyboard.
  const key = [language(), tab, status?.inbox?.dead].join();
  if (key === labelled) return;
  labelled = key;
  keepPlace($("nav"), () => $("nav").replaceChildren(...TABS.map((name) => {
    const link = make("a", { href: `#${name}`, text: t(name) });
    if (name === tab) link.setAttribute("aria-current", "page");
    const count = name === "dead" ? status?.inbox?.dead : 0;
    if (count) link.append(make("span", { class: "count", text: String(count) }));
    return link;
  })));
}

// Draws a part anew; the focus comes back to what stands in the same place, and what was opened stays open.
function keepPlace(part, redraw) {
  const reach = () => [...part.querySelectorAll("a[href], button, summary")];
  const place = reach().indexOf(document.activeElement);
  const opened = [...part.querySelectorAll("details")].map((each) => each.open);
  redraw();
  part.querySelectorAll("details").forEach((each, index) => { each.open = Boolean(opened[index]); });
  if (place >= 0) reach()[place]?.focus({ preventScroll: true });
}

function head() {
  const state = status?.stream?.state;
  $("state").textContent = state ? t("states")[state] || state : t("loading");
  $("state").classList.toggle("on", state === "OPEN");
  $("version").textContent = status ? `${status.version} · ${t("uptime")} ${span(status.uptime_s)}` : "";
}

async function draw() {
  const turn = ++drawn;
  const content = $("content");
  const heading = make("h2", { text: t(tab) });
  if (tab in LIVE) {
    content.className = tab;
    content.replaceChildren(heading, ...(status ? LIVE[tab](status) : [make("p", { class: "empty", text: t("loading") })]));
    return;
  }
  if (content.className !== tab) content.replaceChildren(heading, make("p", { class: "empty", text: t("loading") }));
  content.className = tab;
  let parts;
  try { parts = await work[tab](draw); } catch (fault) {
    if (fault instanceof ApiFault && fault.status === 401) { leave(t("wrong")); return; }
    parts = [make("p", { class: "empty", text: `${t("failedLoad")}: ${fault instanceof ApiFault ? fault.message : t("away")}` })];
  }
  if (turn === drawn) content.replaceChildren(heading, ...parts);
}

function take(next) {
  const dead = status?.inbox?.dead;
  status = next;
  head();
  label();
  if (tab in LIVE) keepPlace($("content"), draw);
  else if (tab === "dead" && dead !== undefined && dead !== status.inbox?.dead) draw();
}

async function listen(control) {
  for (let tries = 0; !control.signal.aborted; tries += 1) {
    try {
      const answer = await open("/api/events", { signal: control.signal });
      tries = 0;
      $("live").hidden = true;
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const data = event.match(/^data: (.*)$/m)?.[1];
          if (/^event: status$/m.test(event) && data) take(JSON.parse(data));
          if (/^event: end$/m.test(event)) away(t("draining"));
        }
      }
    } catch (fault) {
      if (control.signal.aborted) return;
      if (fault instanceof ApiFault && (fault.status === 401 || fault.status === 404)) { leave(t("wrong")); return; }
    }
    away(t("away"));
    await new Promise((wake) => setTimeout(wake, RETRY_MS[Math.min(tries, RETRY_MS.length - 1)]));
  }
}

function away(text) {
  $("live").textContent = text;
  $("live").hidden = false;
  $("state").classList.remove("on");
}

function enter() {
  $("login").hidden = true;
  $("app").hidden = $("leave").hidden = false;
  stream?.abort();
  stream = new AbortController();
  if (status?.setup) { begin(stream.signal); return; }
  $("nav").hidden = false;
  listen(stream);
  label();
  head();
  draw();
}

// A claw without credentials: the set-up fills the page until it has some.
function begin(signal) {
  const first = status;
  $("nav").hidden = true;
  label();
  $("version").textContent = status.version;
  $("state").textContent = t("setupTitle");
  setUp(first.setup, $("content"), {
    signal,
    away: (is) => { if (is) away(t("setupStarting")); else $("live").hidden = true; },
    ready: (whole) => { status = whole; $("live").hidden = true; enter(); },
    refuse: (fault) => {
      if (!(fault instanceof ApiFault) || fault.status !== 401) return false;
      leave(t("wrong"));
      return true;
    },
  });
}

function leave(why = "") {
  stream?.abort();
  stream = status = null;
  setToken("");
  $("app").hidden = $("leave").hidden = $("live").hidden = true;
  $("login").hidden = false;
  $("content").replaceChildren();
  $("state").textContent = $("version").textContent = "";
  $("state").classList.remove("on");
  $("refused").textContent = why;
  $("refused").hidden = !why;
  $("token").value = "";
  $("token").focus();
}

async function resume() {
  try { status = await call("/status"); } catch (fault) {
    if (fault instanceof ApiFault && fault.status === 401) { leave(t("wrong")); return; }
  }
  enter();
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken($("token").value.trim());
  try { status = await call("/status"); enter(); } catch (fault) {
    if (!(fault instanceof ApiFault)) leave(t("away"));
    else if (fault.status === 429) leave(t("slow", Math.ceil(fault.wait) || 1));
    else leave(fault.status === 401 ? t("wrong") : fault.message);
  }
});
$("leave").addEventListener("click", () => leave());
$("lang").addEventListener("click", () => { setLanguage(language() === "zh" ? "en" : "zh"); label(); if (!$("app").hidden) { head(); draw(); } });
const choose = () => { const name = location.hash.slice(1); tab = TABS.includes(name) ? name : "overview"; if (!$("app").hidden) { label(); draw(); } };
addEventListener("hashchange", choose);

choose();
label();
// A token that was kept: what there is to show depends on whether claw has credentials.
if (token()) resume(); else leave();
