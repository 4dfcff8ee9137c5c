// The page of the emulator. It reads /_/state once, then follows /_/events; whatever it cannot follow, it reads anew.
"use strict";

const WORDS = {
  zh: {
    brand: "本地钉钉", iam: "我是", chats: "会话", direct: "与机器人单聊", connections: "长连接", frames: "最近的帧",
    actions: "一次性故障", faults: "故障开关", resetFaults: "全部复位", send: "发送", at: "@机器人", pause: "暂停", resume: "继续",
    placeholder: "输入消息，Enter 发送，Shift+Enter 换行", none: "还没有机器人连上来", noneHint: "把 DINGTALK_OPENAPI_ENDPOINT 指向本页地址即可",
    online: "机器人在线", offline: "机器人离线", empty: "说点什么吧", emptyHint: "机器人的回答会出现在这里",
    lost: "未送达：没有连接", silent: "未 @ 机器人，不会推送", inflight: "待确认", acks: "已确认", card: "AI 卡片",
    typing: "正在输入", finished: "已完成", failed: "失败", recalled: "此消息已撤回", directNote: "单聊，机器人直接收到", groupNote: "群聊，@ 机器人才会收到",
    pushes: "推送", registrations: "注册", violations: "违规", done: "完成", tips: ["你好，你能做什么？", "长文", "代码", "慢 5"],
    states: { open: "已连接", draining: "排空中", frozen: "已冻结", closed: "已关闭" },
    groups: { gateway: "注册网关", websocket: "WebSocket", push: "推送", webhook: "会话 Webhook", openapi: "OpenAPI 与令牌", card: "卡片", model: "内置模型" },
  },
  en: {
    brand: "Local DingTalk", iam: "I am", chats: "Chats", direct: "Direct chat", connections: "Connections", frames: "Last frames",
    actions: "One-shot faults", faults: "Fault switches", resetFaults: "reset all", send: "Send", at: "@robot", pause: "pause", resume: "resume",
    placeholder: "Write a message: Enter sends, Shift+Enter breaks the line", none: "No robot has connected yet", noneHint: "Point DINGTALK_OPENAPI_ENDPOINT at this address",
    online: "Robot online", offline: "Robot offline", empty: "Say something", emptyHint: "The robot's answers appear here",
    lost: "lost: no connection", silent: "robot not mentioned: not pushed", inflight: "in flight", acks: "acks", card: "AI card",
    typing: "typing", finished: "finished", failed: "failed", recalled: "This message was recalled", directNote: "The robot gets everything", groupNote: "The robot gets what mentions it",
    pushes: "pushes", registrations: "registrations", violations: "violations", done: "done", tips: ["Hello, what can you do?", "long", "code", "slow 5"],
    states: { open: "open", draining: "draining", frozen: "frozen", closed: "closed" },
    groups: { gateway: "Gateway", websocket: "WebSocket", push: "Pushes", webhook: "Session webhook", openapi: "OpenAPI and tokens", card: "Cards", model: "Built-in model" },
  },
};
const FRAMES_SHOWN = 60;
const BUBBLES_SHOWN = 300;
const COLOURS = 7;

const $ = (id) => document.getElementById(id);
const make = (tag, className = "", text = "") => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
};
const remembered = (() => { try { return localStorage.getItem("lang"); } catch { return null; } })();
let lang = remembered || (/^zh/i.test(navigator.language || "zh") ? "zh" : "en");
const t = (name) => WORDS[lang][name];

let state = null;
let switches = [];
let person = "u-1001";
let chat = "direct:u-1001";
let paused = false;
let loading = 0;
const late = [];
const bubbles = new Map();

async function call(path, options = {}) {
  const init = { ...options };
  if (init.body !== undefined) {
    init.body = JSON.stringify(init.body);
    init.headers = { "Content-Type": "application/json" };
  }
  const answer = await fetch(path, init);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error || answer.statusText);
  return body;
}

function note(text, bad = false) {
  $("note").textContent = text;
  $("note").classList.toggle("bad", bad);
}

const attempt = (doing) => doing().catch((error) => note(error.message, true));

// Words, people and chats

function colour(node, key) {
  let sum = 0;
  for (const c of key) sum = (sum * 31 + c.codePointAt(0)) % 9973;
  node.dataset.colour = String(sum % COLOURS);
}

function avatar(name, key) {
  // A person's given name, as DingTalk draws it; the beginning of everything else.
  const letters = [...name.replace(/[（(].*$/, "")];
  const person = !key.startsWith("g-") && letters[0] > "\x7f";
  const node = make("span", "avatar", (person ? letters.slice(-2) : letters.slice(0, 2)).join(""));
  if (name === "AI") node.classList.add("ai");
  else colour(node, key);
  return node;
}

function drawWords() {
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  $("lang").textContent = lang === "zh" ? "English" : "中文";
  $("pause").textContent = paused ? t("resume") : t("pause");
  $("message").placeholder = t("placeholder");
  $("tips").replaceChildren(...t("tips").map((tip) => {
    const button = make("button", "tip", tip);
    button.type = "button";
    button.addEventListener("click", () => send(tip));
    return button;
  }));
}

const visibleChats = () => state.chats.filter((one) => one.group || one.person === person);
const chatName = (one) => (one.group ? one.title : t("direct"));

function drawChats() {
  $("person").replaceChildren(...state.people.map((one) => {
    const option = make("option", "", `${one.nick}${one.isAdmin ? " · admin" : ""}`);
    option.value = one.id;
    option.selected = one.id === person;
    return option;
  }));
  const chats = visibleChats();
  if (!chats.some((one) => one.id === chat)) chat = chats[0].id;
  $("chat").replaceChildren(...chats.map((one) => {
    const option = make("option", "", chatName(one));
    option.value = one.id;
    option.selected = one.id === chat;
    return option;
  }));
  $("chats").replaceChildren(...chats.map((one) => {
    const button = make("button", one.id === chat ? "chat active" : "chat");
    button.type = "button";
    button.dataset.chat = one.id;
    button.append(avatar(one.group ? one.title : "AI", one.id), make("span", "", chatName(one)));
    button.addEventListener("click", () => choose(person, one.id));
    return button;
  }));
  const current = chats.find((one) => one.id === chat);
  const big = avatar(current.group ? current.title : "AI", current.id);
  big.id = "chat-avatar";
  $("chat-avatar").replaceWith(big);
  $("chat-note").textContent = current.group ? t("groupNote") : t("directNote");
  $("at-label").hidden = !current.group;
}

function choose(newPerson, newChat) {
  person = newPerson;
  chat = newChat === "direct" ? `direct:${person}` : newChat;
  if (chat.startsWith("direct:")) chat = `direct:${person}`;
  drawChats();
  return attempt(loadMessages);
}

// Messages

async function loadMessages() {
  const wanted = chat;
  loading += 1;
  try {
    const messages = await call(`/_/chats/${encodeURIComponent(wanted)}/messages`);
    if (wanted !== chat) return;
    bubbles.clear();
    $("messages").replaceChildren();
    for (const message of messages.slice(-BUBBLES_SHOWN)) drawMessage(message);
  } finally {
    loading -= 1;
    // What was told while the list was on its way may not be in it.
    if (!loading) for (const message of late.splice(0)) if (message.chat === chat) drawMessage(message);
  }
  drawEmpty();
  $("messages").scrollTop = $("messages").scrollHeight;
}

function drawEmpty() {
  const old = $("messages").querySelector(".empty");
  if (old) old.remove();
  if (bubbles.size) return;
  const empty = make("div", "empty");
  empty.append(make("b", "", t("empty")), make("span", "", t("emptyHint")));
  $("messages").append(empty);
}

function drawMessage(message) {
  const robot = message.sender === "robot";
  const mine = message.sender === person;
  const row = make("div", `row ${robot ? "robot" : mine ? "mine" : "other"}`);
  row.dataset.msgid = message.id;
  const column = make("div", "column");
  const time = new Date(message.created_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const head = make("div", "meta");
  head.append(make("span", "", message.nick), make("time", "", time));
  if (robot) head.append(make("span", "tag", message.via === "card" ? t("card") : message.via === "webhook" ? "Webhook" : "OpenAPI"));
  const bubble = make("div", `bubble ${robot ? "robot" : "person"}`);
  bubble.dataset.testid = robot ? "robot-bubble" : "person-bubble";
  if (message.recalled) {
    bubble.classList.add("recalled");
    bubble.textContent = t("recalled");
  } else if (robot && message.msgtype !== "text") {
    bubble.innerHTML = renderMarkdown(message.text); // Escaped first, see markdown.js.
  } else {
    bubble.textContent = message.text;
  }
  if (message.content && message.content.downloadCode && /picture|image/.test(message.msgtype)) {
    const picture = make("img");
    picture.src = `/files/${encodeURIComponent(message.content.downloadCode)}`;
    bubble.append(picture);
  }
  if (message.card) {
    bubble.classList.add("card", message.card_state);
    bubble.append(make("div", "card-state", t(message.card_state)));
  }
  column.append(head, bubble);
  if (message.reactions.length) {
    const reactions = make("div", "reactions");
    for (const one of message.reactions) reactions.append(make("span", "reaction", one));
    column.append(reactions);
  }
  if (!robot && message.to_robot && !message.delivered) column.append(make("div", "hint bad", t("lost")));
  if (!robot && !message.to_robot) column.append(make("div", "hint", t("silent")));
  row.append(robot ? avatar("AI", "robot") : avatar(message.nick, message.sender), column);
  const old = bubbles.get(message.id);
  bubbles.set(message.id, row);
  const box = $("messages");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 120;
  if (old) old.replaceWith(row);
  else box.append(row);
  if (bubbles.size > BUBBLES_SHOWN) {
    const [oldest] = bubbles.keys();
    bubbles.get(oldest).remove();
    bubbles.delete(oldest);
  }
  if (atEnd || mine) box.scrollTop = box.scrollHeight;
}

function send(text) {
  const said = text.trim();
  if (!said) return;
  attempt(async () => {
    await call("/_/say", { method: "POST", body: { from: person, chat, text: said, at_robot: $("at-robot").checked } });
    note("");
  });
}

// The panel

const seconds = (age) => (age < 60 ? `${Math.floor(age)} s` : age < 3600 ? `${Math.floor(age / 60)} min` : `${(age / 3600).toFixed(1)} h`);

function drawConnections() {
  const live = state.connections;
  const open = live.filter((one) => one.state === "open").length;
  $("live").textContent = open ? `${t("online")} · ${open}` : t("offline");
  $("live").classList.toggle("on", open > 0);
  const counts = [[t("registrations"), state.registrations.count], [t("pushes"), state.pushes.count]];
  if (state.violations.count) counts.push([t("violations"), state.violations.count]);
  $("counts").textContent = counts.map(([name, count]) => `${name} ${count}`).join(" · ");
  if (!live.length) {
    const empty = make("div", "nobody");
    empty.append(make("b", "", t("none")), make("span", "", t("noneHint")));
    $("connections").replaceChildren(empty);
    return;
  }
  $("connections").replaceChildren(...live.map((one) => {
    const row = make("div", `connection ${one.state}`);
    row.dataset.connection = one.id;
    row.append(make("i", "dot"), make("b", "", one.id), make("span", "state", t("states")[one.state]), make("span", "", seconds(one.age)),
      make("span", "number", `${t("inflight")} ${one.in_flight}`), make("span", "number", `${t("acks")} ${one.acks}`));
    return row;
  }));
}

const waiting = [];
function showFrame(frame) {
  // Drawn once per picture, however many arrive: a bench pushes hundreds a second.
  if (waiting.push(frame) > FRAMES_SHOWN) waiting.shift();
  if (waiting.length === 1) requestAnimationFrame(() => waiting.splice(0).forEach(drawFrame));
}

function drawFrame(frame) {
  const row = make("details", `frame ${frame.direction}`);
  const topic = (frame.text.match(/"topic":\s*"([^"]*)"/) || [])[1] || "";
  const type = (frame.text.match(/"type":\s*"([A-Z]+)"/) || [])[1] || "";
  const code = (frame.text.match(/"code":\s*(\d+)/) || [])[1];
  const line = make("summary");
  line.append(make("i", "arrow", frame.direction === "out" ? "↓" : "↑"),
    make("time", "", new Date(frame.at * 1000).toLocaleTimeString([], { hour12: false })),
    make("b", "", frame.direction === "in" ? `ack ${code || "?"}` : type || "?"),
    make("span", "topic", frame.direction === "in" ? frame.connection : topic || frame.text.slice(0, 40)));
  let pretty = frame.text;
  try { pretty = JSON.stringify(JSON.parse(frame.text), null, 1); } catch { /* Shown as it is: it may be cut or bad on purpose. */ }
  row.append(line, make("pre", "", pretty));
  $("frames").prepend(row);
  while ($("frames").childElementCount > FRAMES_SHOWN) $("frames").lastElementChild.remove();
}

function drawActions() {
  $("actions").replaceChildren(...Object.entries(state.actions).map(([name, words]) => {
    const button = make("button", "action", words[lang]);
    button.type = "button";
    button.dataset.action = name;
    button.title = name;
    button.addEventListener("click", () => attempt(async () => {
      await call(`/_/actions/${name}`, { method: "POST", body: {} });
      note(`${words[lang]} · ${t("done")}`);
      await refresh();
    }));
    return button;
  }));
}

function control(one) {
  let input;
  if (one.choices.length) {
    input = make("select");
    for (const choice of one.choices) {
      const option = make("option", "", choice === 0 || choice === "" ? "–" : String(choice));
      option.value = String(choice);
      input.append(option);
    }
  } else {
    input = make("input");
    input.type = one.type === "bool" ? "checkbox" : one.type === "str" ? "text" : "number";
    if (input.type === "number") input.step = one.type === "int" ? "1" : "any";
  }
  input.dataset.fault = one.name;
  input.addEventListener("change", () => attempt(async () => {
    let value = one.type === "bool" ? input.checked : input.value;
    if (one.type === "int" || one.type === "float") value = input.value === "" ? (one.name === "disconnect_close_after" ? null : one.default) : Number(input.value);
    try {
      await call("/_/faults", { method: "POST", body: { [one.name]: value } });
      note("");
    } finally {
      state.faults = (await call("/_/faults")).faults;
      drawFaultValues();
    }
  }));
  return input;
}

function drawFaults() {
  const groups = new Map();
  for (const one of switches) {
    if (!groups.has(one.group)) groups.set(one.group, []);
    groups.get(one.group).push(one);
  }
  $("faults").replaceChildren(...[...groups].map(([name, members]) => {
    const group = make("details", "group");
    group.open = true;
    group.append(make("summary", "", t("groups")[name]));
    for (const one of members) {
      const label = make("label", one.type === "bool" ? "fault toggle" : "fault");
      label.title = one.name;
      label.append(make("span", "", one[lang]), control(one));
      group.append(label);
    }
    return group;
  }));
  drawFaultValues();
}

function drawFaultValues() {
  for (const one of switches) {
    const input = document.querySelector(`[data-fault="${one.name}"]`);
    const value = state.faults[one.name];
    if (one.type === "bool") input.checked = value;
    else if (document.activeElement !== input) input.value = value === null ? "" : String(value);
    input.closest(".fault").classList.toggle("on", value !== one.default);
  }
}

function drawService() {
  const links = state.service_url ? ["ready", "status"].map((name) => {
    const link = make("a", "", `/${name}`);
    link.href = `${state.service_url.replace(/\/$/, "")}/${name}`;
    link.target = "_blank";
    link.rel = "noopener";
    return link;
  }) : [];
  $("service").replaceChildren(...links);
}

function drawAll() {
  drawWords();
  drawChats();
  drawConnections();
  drawActions();
  drawFaults();
  drawService();
}

// Following

async function refresh() {
  state = await call("/_/state");
  const asked = new URLSearchParams(location.search).get("service");
  if (asked && /^https?:\/\//.test(asked)) state.service_url = asked;
  drawConnections();
}

async function reload() {
  loading += 1; // Until the messages are read as well, what is told has to wait.
  try {
    const described = await call("/_/faults");
    switches = described.switches;
    await refresh();
    drawAll();
    $("frames").replaceChildren();
    for (const frame of state.frames) drawFrame(frame);
  } finally {
    loading -= 1;
  }
  await loadMessages();
}

let refreshing = null;
function soon() {
  refreshing ||= setTimeout(() => { refreshing = null; attempt(refresh); }, 150);
}

function follow() {
  // Everything is read anew whenever the stream opens, the first time too: nothing falls between reading and following.
  const events = new EventSource("/_/events");
  events.onopen = () => attempt(reload);
  events.onmessage = (raw) => {
    const event = JSON.parse(raw.data);
    if (event.type === "message") {
      if (loading) {
        late.push(event.message);
      } else if (event.message.chat === chat) {
        drawMessage(event.message);
        drawEmpty();
      }
    } else if (!state) {
      return; // The first reading is under way and will show it.
    } else if (event.type === "frame") {
      if (!paused) showFrame(event);
    } else if (event.type === "faults") {
      state.faults = event.faults;
      drawFaultValues();
    } else if (event.type === "resync") {
      attempt(reload);
    } else {
      soon();
    }
  };
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send($("message").value);
  $("message").value = "";
  $("message").focus();
});
$("message").addEventListener("keydown", (event) => {
  // isComposing: Enter also confirms a word of a Chinese input method, and must not send then.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
});
$("person").addEventListener("change", () => choose($("person").value, chat));
$("chat").addEventListener("change", () => choose(person, $("chat").value));
$("pause").addEventListener("click", () => { paused = !paused; drawWords(); });
$("reset-faults").addEventListener("click", () => attempt(async () => {
  state.faults = (await call("/_/faults", { method: "DELETE" })).faults;
  drawFaultValues();
}));
$("lang").addEventListener("click", () => {
  lang = lang === "zh" ? "en" : "zh";
  try { localStorage.setItem("lang", lang); } catch { /* Only a convenience. */ }
  drawAll();
  attempt(loadMessages);
});
setInterval(() => { if (state && !document.hidden) attempt(refresh); }, 2000);
follow();
