// The messages of the chat that is open: what was said, quoted, sent along, and what became of it.
"use strict";

const BUBBLES_SHOWN = 300;

let loading = 0;
const late = [];
const bubbles = new Map();
const known = new Map(); // By id, of this chat: what a message quotes is shown above it.

// Who said what, in a line.
function brief(message) {
  const pictured = /^(picture|image)$/.test(message.msgtype);
  const text = pictured ? `[${t("picture")}]` : (message.content && message.content.fileName) || message.text;
  return `${message.nick}：${text.slice(0, 60)}`;
}

const fileAddress = (code) => `/_/files/${encodeURIComponent(code)}`;

async function loadMessages() {
  const wanted = chat;
  loading += 1;
  try {
    const messages = await call(`/_/chats/${encodeURIComponent(wanted)}/messages`);
    if (wanted !== chat) return;
    bubbles.clear();
    known.clear();
    cards.clear();
    $("messages").replaceChildren();
    for (const message of messages.slice(-BUBBLES_SHOWN)) drawMessage(message, true);
  } finally {
    loading -= 1;
    // What was told while the list was on its way may not be in it.
    if (!loading) for (const message of late.splice(0)) if (message.chat === chat) drawMessage(message);
  }
  drawEmpty();
  scrollToEnd();
}

function drawEmpty() {
  const old = $("messages").querySelector(".empty");
  if (old) old.remove();
  if (bubbles.size) return;
  const empty = make("div", "empty");
  empty.append(make("b", "", t("empty")), make("span", "", t("emptyHint")));
  $("messages").append(empty);
}

let atEnd = true;
const scrollToEnd = () => { $("messages").scrollTop = $("messages").scrollHeight; };
// A picture has its height only when it is there; whoever reads older messages is left where they are.
const keepAtEnd = () => { if (atEnd) scrollToEnd(); };

function drawMessage(message, whole = false) {
  known.set(message.id, message);
  // In its place: its text is being typed, and somebody may be at its buttons.
  if (cards.has(message.id) && !message.recalled) return updateCard(message);
  const robot = message.sender === "robot";
  const mine = message.sender === person;
  const row = make("div", `row ${robot ? "robot" : mine ? "mine" : "other"}`);
  row.dataset.msgid = message.id;
  const column = make("div", "column");
  column.append(drawHead(message, robot), drawBubble(message, robot, whole), ...drawFate(message, robot));
  row.append(robot ? avatar("AI", "robot") : avatar(message.nick, message.sender), column);
  const old = bubbles.get(message.id);
  bubbles.set(message.id, row);
  if (old) old.replaceWith(row);
  else $("messages").append(row);
  if (bubbles.size > BUBBLES_SHOWN) {
    const [oldest] = bubbles.keys();
    bubbles.get(oldest).remove();
    bubbles.delete(oldest);
    known.delete(oldest);
    cards.delete(oldest);
  }
  if (atEnd || mine) scrollToEnd();
}

function drawHead(message, robot) {
  const head = make("div", "meta");
  const time = new Date(message.created_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  head.append(make("span", "", message.nick), make("time", "", time));
  if (robot) head.append(make("span", "tag", message.via === "card" ? t("card") : message.via === "webhook" ? "Webhook" : "OpenAPI"));
  // A card's text may have grown since.
  const quote = press("link", t("quote"), () => quoteMessage(known.get(message.id) || message));
  quote.dataset.quote = message.id;
  const pick = press("link", t("select"), () => {
    pick.setAttribute("aria-pressed", String(pickMessage(message)));
  });
  pick.dataset.pick = message.id;
  pick.setAttribute("aria-pressed", String(selected.has(message.id)));
  const tools = make("span", "tools");
  tools.append(quote, pick);
  head.append(tools);
  return head;
}

function drawBubble(message, robot, whole) {
  const bubble = make("div", `bubble ${robot ? "robot" : "person"}`);
  bubble.dataset.testid = robot ? "robot-bubble" : "person-bubble";
  if (message.recalled) {
    cards.delete(message.id);
    bubble.classList.add("recalled");
    bubble.textContent = t("recalled");
    return bubble;
  }
  if (message.quote) {
    const quoted = known.get(message.quote);
    bubble.append(make("div", "quoted", quoted ? brief(quoted) : t("quotedElsewhere")));
  }
  if (!message.card_view) {
    bubble.append(drawContent(message, robot));
    return bubble;
  }
  const card = drawCard(message, whole);
  bubble.classList.add("card");
  bubble.append(card.body, card.foot, card.note);
  return bubble;
}

function drawContent(message, robot) {
  const content = message.content || {};
  const out = document.createDocumentFragment();
  if (/^(picture|image)$/.test(message.msgtype)) {
    const address = content.downloadCode ? fileAddress(content.downloadCode) : stored(message.text);
    out.append(address ? picture(address, content.fileName) : message.text);
  } else if (message.msgtype === "file") {
    out.append(drawFile(content, message.text));
  } else if (message.msgtype === "richText" && Array.isArray(content.richText)) {
    for (const item of content.richText) if (item) out.append(drawItem(item));
  } else if (message.msgtype === "chatRecord") {
    out.append(drawRecord(content));
  } else if (robot && message.msgtype !== "text") {
    out.append(renderMarkdown(message.text));
  } else {
    out.append(message.text);
  }
  return out;
}

function drawItem(item) {
  if (item.type === "at") return make("b", "", `@${item.atName || ""} `);
  if (item.downloadCode && item.type === "video") return drawFile(item, t("kinds").video);
  if (item.downloadCode) return picture(fileAddress(item.downloadCode), item.fileName);
  return make("span", "", item.text || item.content || "");
}

function drawFile(content, text) {
  const name = content.fileName || text;
  if (!content.downloadCode) return make("span", "", `📎 ${name}`);
  const link = anchor(fileAddress(content.downloadCode), name);
  link.prepend(icon("file"));
  link.className = "attached";
  link.download = name;
  return link;
}

function drawRecord(content) {
  let lines = String(content.summary || "").split("\n");
  try {
    const list = JSON.parse(content.summary);
    if (Array.isArray(list)) lines = list.map(String);
  } catch { /* Lines already. */ }
  const record = make("div", "record");
  record.append(make("b", "", `🗂 ${content.title || t("forward")}`), ...lines.map((line) => make("div", "", line)));
  return record;
}

// What became of a message: reactions, whom it mentions, and whether the robot got it.
function drawFate(message, robot) {
  const fate = [];
  if (message.reactions.length) {
    const reactions = make("div", "reactions");
    for (const one of message.reactions) reactions.append(make("span", "reaction", one));
    fate.push(reactions);
  }
  if (robot && message.at.length) fate.push(make("div", "hint", `${t("mentions")} ${message.at.map((id) => (id === "*" ? t("everybody") : `@${nickOf(id)}`)).join(" ")}`));
  if (!robot && message.to_robot && !message.delivered) {
    const lost = make("div", "hint bad", `${t("lost")} `);
    // Into the box and not out at once: it is the person's to say whether it is still worth asking.
    if (message.msgtype === "text") lost.append(press("link", t("again"), () => { fill(message.text); $("message").focus(); }));
    fate.push(lost);
  }
  if (!robot && !message.to_robot) fate.push(make("div", "hint", message.msgtype === "text" ? t("silent") : t("quiet")));
  return fate;
}
