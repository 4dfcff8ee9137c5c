// The page of the emulator. It reads /_/state once, then follows /_/events; whatever it cannot follow, it reads anew.
"use strict";

let begun = false;

// Words, people and chats

function drawWords() {
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", t(node.dataset.tLabel));
    node.title = t(node.dataset.tLabel);
  }
  $("lang").textContent = lang === "zh" ? "English" : "中文";
  $("pause").textContent = paused ? t("resume") : t("pause");
  $("message").placeholder = t("placeholder");
  drawAttach();
  drawStrips();
  $("tips").replaceChildren(...t("tips").map((tip) => press("tip", tip, () => suggest(tip))));
}

const visibleChats = () => state.chats.filter((one) => one.group || one.person === person);
const chatName = (one) => (one.group ? one.title : t("direct"));

function drawChats() {
  $("person").replaceChildren(...state.people.map((one) =>
    choice(one.id, `${one.nick}${one.isAdmin ? ` · ${t("admin")}` : ""}`, one.id === person)));
  const chats = visibleChats();
  if (!chats.some((one) => one.id === chat)) chat = chats[0].id;
  $("chat").replaceChildren(...chats.map((one) => choice(one.id, chatName(one), one.id === chat)));
  $("chats").replaceChildren(...chats.map((one) => {
    const button = press(one.id === chat ? "chat active" : "chat", "", () => choose(person, one.id));
    button.dataset.chat = one.id;
    button.append(avatar(one.group ? one.title : "AI", one.id), make("span", "", chatName(one)));
    return button;
  }));
  const current = chats.find((one) => one.id === chat);
  const big = avatar(current.group ? current.title : "AI", current.id);
  big.id = "chat-avatar";
  $("chat-avatar").replaceWith(big);
  const outsider = state.people.some((one) => one.id === person && !one.staffId);
  $("chat-note").textContent = `${current.group ? t("groupNote") : t("directNote")}${outsider ? ` · ${t("outsider")}` : ""}`;
  $("at-label").hidden = !current.group;
  drawMentions();
}

function choose(newPerson, newChat) {
  const before = chat;
  person = newPerson;
  chat = newChat.startsWith("direct:") ? `direct:${person}` : newChat;
  mentioned.delete(person);
  // A quote stays within its chat; what was picked may be forwarded to another one.
  if (chat !== before) { quoted = null; mentioned.clear(); drawStrips(); }
  atEnd = true;
  drawChats();
  return attempt(loadMessages);
}

function drawAll() {
  drawWords();
  drawChats();
  drawConnections();
  drawActions();
  drawFaults();
  attempt(drawService);
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
  // Once: whoever is at a switch when the emulator comes back stays there.
  if (!begun) { begun = true; $("message").focus(); }
}

let refreshing = null;
function soon() {
  refreshing ||= setTimeout(() => { refreshing = null; attempt(refresh); }, 150);
}

function take(event) {
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
}

let away = false;
function follow() {
  // Everything is read anew whenever the stream opens, the first time too: nothing falls between reading and following.
  const events = new EventSource("/_/events");
  events.onopen = () => { away = false; attempt(reload); };
  events.onmessage = (raw) => take(JSON.parse(raw.data));
  events.onerror = () => {
    // What was known of the robot is known no more.
    away = true;
    $("live").textContent = t("gone");
    $("live").classList.remove("on");
  };
}

listenToComposer();
$("messages").addEventListener("scroll", () => {
  const box = $("messages");
  atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 120;
});
// The box below grows and shrinks: what was at the end stays at the end.
new ResizeObserver(keepAtEnd).observe($("messages"));
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
setInterval(() => { if (state && !away && !document.hidden) attempt(async () => { await refresh(); await drawService(); }); }, 2000);
drawWords();
follow();
