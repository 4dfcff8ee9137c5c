// What all parts of the page share: words, calls, and the making of nodes. Text is always set as text, never as markup.
import { WORDS } from "./words.js";

const TOKEN = "claw.token";
const CALL_TIMEOUT_MS = 15000;
const read = (store, name) => { try { return store.getItem(name); } catch { return null; } };
const write = (store, name, value) => { try { if (value) store.setItem(name, value); else store.removeItem(name); } catch { /* a browser that keeps nothing: the token is asked again */ } };

let lang = read(localStorage, "claw.lang") || (/^zh/i.test(navigator.language || "zh") ? "zh" : "en");
export const t = (name, ...values) => { const word = WORDS[lang][name]; return typeof word === "function" ? word(...values) : word; };
export const language = () => lang;
export const setLanguage = (next) => { lang = next; write(localStorage, "claw.lang", next); document.documentElement.lang = next; };
export const token = () => read(sessionStorage, TOKEN) || "";
export const setToken = (value) => write(sessionStorage, TOKEN, value);

export const $ = (id) => document.getElementById(id);
export const make = (tag, options = {}, ...children) => {
  const { text, on, data, ...rest } = options;
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(rest)) {
    if (name === "class") node.className = value;
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value);
  }
  if (text !== undefined) node.textContent = text;
  for (const [name, act] of Object.entries(on || {})) node.addEventListener(name, act);
  for (const [name, value] of Object.entries(data || {})) node.dataset[name] = value;
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

export class ApiFault extends Error {
  constructor(status, body, wait) {
    const error = (body && body.error) || {};
    super([error.field, error.message].filter(Boolean).join(": ") || `HTTP ${status}`);
    this.status = status;
    this.wait = wait;
  }
}

export async function open(path, options = {}) {
  const init = { ...options, headers: { Authorization: `Bearer ${token()}` }, cache: "no-store" };
  if (options.body !== undefined) {
    init.body = JSON.stringify(options.body);
    init.headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, init);
  if (!answer.ok) {
    let body = null;
    try { body = await answer.json(); } catch { /* a proxy's page */ }
    throw new ApiFault(answer.status, body, Number(answer.headers.get("Retry-After")) || 0);
  }
  return answer;
}
export const call = async (path, options = {}) => (await open(path, { signal: AbortSignal.timeout(CALL_TIMEOUT_MS), ...options })).json();

export const when = (text) => {
  if (!text) return "–";
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  const form = today ? { hour: "2-digit", minute: "2-digit", second: "2-digit" } : { month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit" };
  return at.toLocaleString(lang === "zh" ? "zh-CN" : "en-GB", { hour12: false, ...form });
};
export const span = (seconds) => {
  const s = Number(seconds) || 0;
  if (s < 90) return t("seconds", s < 10 ? Math.round(s * 10) / 10 : Math.round(s));
  const units = [[86400, lang === "zh" ? "天" : "d"], [3600, lang === "zh" ? "小时" : "h"], [60, lang === "zh" ? "分钟" : "min"]];
  const [size, name] = units.find(([each]) => s >= each);
  return `${Math.round((s / size) * 10) / 10} ${name}`;
};
export const word = (name) => t(name) || name;

let telling;
export const tell = (text) => {
  const told = $("told");
  told.textContent = text;
  told.classList.add("seen");
  clearTimeout(telling);
  telling = setTimeout(() => told.classList.remove("seen"), 4000);
};
export const confirmed = (text) => new Promise((resolve) => {
  const dialog = $("ask");
  $("question").textContent = text;
  dialog.returnValue = "no";
  dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  dialog.showModal();
});
// An action of a button: it cannot be pressed twice at once, and its fault is told where everybody looks.
export const act = (doing) => async (event) => {
  const button = event.currentTarget;
  button.disabled = true;
  try { await doing(event); } catch (fault) { tell(fault instanceof ApiFault ? fault.message : t("away")); } finally { button.disabled = false; }
};
export const table = (columns, rows) => make("div", { class: "scroll" }, make("table", {},
  make("thead", {}, make("tr", {}, ...columns.map((name) => make("th", { scope: "col", text: name })))),
  make("tbody", {}, ...rows.map((cells) => make("tr", {}, ...cells.map((cell) => (cell instanceof Node ? make("td", {}, cell) : make("td", { text: cell ?? "" }))))))));
export const card = (title, ...children) => make("section", { class: "card" }, make("h3", { text: title }), ...children);
export const facts = (pairs) => make("dl", {}, ...pairs.filter((pair) => pair).flatMap(([name, value]) => [make("dt", { text: name }), value instanceof Node ? make("dd", {}, value) : make("dd", { text: value ?? "–" })]));
