// What all parts of the page share: its state, its calls, and the making of nodes. Text is always set as text.
"use strict";

const COLOURS = 7;
const CALL_TIMEOUT_MS = 15000;

const $ = (id) => document.getElementById(id);
const make = (tag, className = "", text = "") => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
};
const press = (className, text, doing) => {
  const button = make("button", className, text);
  button.type = "button";
  button.addEventListener("click", doing);
  return button;
};
// Drawn and not written: not every machine has a font with pictures.
const THUMB = "M6 8.2 9 2.4c1.2 0 1.9.9 1.7 2L10.3 7h3.3c.9 0 1.5.8 1.3 1.7l-1 4.4c-.2.8-.8 1.3-1.6 1.3H6zM6 8.2H2.6v6.2H6";
const ICONS = { stop: "M4.5 4.5h7v7h-7z", like: THUMB, dislike: THUMB, file: "M4 1.8h5l3.4 3.4v9H4zM8.8 2v3.4h3.4" };
const icon = (name) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 17 17");
  svg.setAttribute("class", `icon ${name}`);
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
};
const choice = (value, words, selected) => {
  const option = make("option", "", words);
  option.value = value;
  option.selected = selected;
  return option;
};
const remembered = (() => { try { return localStorage.getItem("lang"); } catch { return null; } })();
let lang = remembered || (/^zh/i.test(navigator.language || "zh") ? "zh" : "en");
const t = (name) => WORDS[lang][name];

let state = null;
let person = "u-1001";
let chat = "direct:u-1001";
const isGroup = () => !chat.startsWith("direct:");

async function call(path, options = {}) {
  const init = { ...options, signal: AbortSignal.timeout(CALL_TIMEOUT_MS) };
  if (init.body !== undefined && !(init.body instanceof Blob)) {
    init.body = JSON.stringify(init.body);
    init.headers = { "Content-Type": "application/json" };
  }
  let answer;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Error(t("away")); // The browser's own words are another language's, and differ by browser.
  }
  if (answer.status === 413) throw new Error(t("tooLarge"));
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `HTTP ${answer.status}`);
  return body;
}

function note(text, bad = false) {
  $("note").textContent = text;
  $("note").classList.toggle("bad", bad);
}

const attempt = (doing) => doing().catch((error) => note(error.message, true));

function colour(node, key) {
  let sum = 0;
  for (const c of key) sum = (sum * 31 + c.codePointAt(0)) % 9973;
  node.dataset.colour = String(sum % COLOURS);
}

function avatar(name, key) {
  // A person's given name, as DingTalk draws it; the beginning of everything else.
  const letters = [...name.replace(/[（(].*$/, "")];
  const given = !key.startsWith("g-") && letters[0] > "\x7f";
  const node = make("span", "avatar", (given ? letters.slice(-2) : letters.slice(0, 2)).join(""));
  node.setAttribute("aria-hidden", "true");
  if (name === "AI") node.classList.add("ai");
  else colour(node, key);
  return node;
}

const nickOf = (id) => {
  const found = state.people.find((one) => one.staffId === id || one.id === id);
  return found ? found.nick : id;
};
