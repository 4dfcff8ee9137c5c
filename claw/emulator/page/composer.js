// What a person sends: words, mentions, quotes, forwarded chats, pictures, files and the rest; and what is not sent.
//
// Order of events: what is typed leaves the box at once, so that the next message can be written; messages go out one
// after another; what fails comes back into the box (or behind a button, if it is no text), with a word why.
"use strict";

const DRAFT = "draft";

let quoted = null;
const selected = new Map();
const mentioned = new Set();
let sending = Promise.resolve();

function fill(text) {
  $("message").value = text;
  // Of this tab only: a reload is no reason to write it again.
  try { sessionStorage.setItem(DRAFT, text); } catch { /* Only a convenience. */ }
}

function quoteMessage(message) {
  quoted = message;
  drawStrips();
  $("message").focus();
}

function pickMessage(message) {
  if (!selected.delete(message.id)) selected.set(message.id, message);
  drawStrips();
  return selected.has(message.id);
}

function drawAttach() {
  $("attach-menu").replaceChildren(...Object.entries(t("kinds")).map(([kind, words]) => {
    const button = press("", words, () => { $("attach").open = false; $("message").focus(); attach(kind); });
    button.dataset.kind = kind;
    return button;
  }));
  const client = $("client").value || "usual";
  $("client").replaceChildren(...Object.entries(t("clients")).map(([value, words]) => choice(value, words, value === client)));
}

function drawMentions() {
  $("mention").hidden = !isGroup();
  // Before the first state is read there is nobody to mention, and a message may be on its way already: a fault here
  // would take what was typed out of the box and send it to nobody.
  if (!state) return;
  $("colleagues").replaceChildren(...state.people.filter((one) => one.id !== person).map((one) => {
    const button = press("chip", `@${one.nick}`, () => {
      const name = `@${one.nick} `;
      if (mentioned.delete(one.id)) fill($("message").value.replace(name, ""));
      else { mentioned.add(one.id); fill(`${$("message").value}${name}`); }
      button.setAttribute("aria-pressed", String(mentioned.has(one.id)));
      $("message").focus();
    });
    button.dataset.person = one.id;
    button.setAttribute("aria-pressed", String(mentioned.has(one.id)));
    return button;
  }));
}

function drawStrips() {
  $("quote").hidden = !quoted;
  $("quote-text").textContent = quoted ? `${t("quoting")} ${brief(quoted)}` : "";
  $("forward").hidden = !selected.size;
  $("forward-text").textContent = `${t("selected")} ${selected.size}`;
}

// One line for the words that are back in the box, one for each message with a file, which waits behind its button.
function tell(text, again = null) {
  for (const line of $("unsent").querySelectorAll(again ? ".none" : ".words")) line.remove();
  if (text) {
    const line = make("div", again ? "" : "words", text);
    if (again) line.append(press("link", t("retry"), () => { line.remove(); hideUnsent(); again(); }));
    $("unsent").append(line);
  }
  hideUnsent();
}

const hideUnsent = () => { $("unsent").hidden = !$("unsent").childElementCount; };

// `prepare` makes the fields of the message, uploads included; `typed` is what it takes out of the box. Words alone come
// back into the box when they are not sent; whatever has more is kept whole, behind a button.
function deliver(prepare, typed = "", alone = false) {
  // As things are now: the next chat may be open by the time that this message is sent.
  const body = { from: person, chat, at_robot: $("at-robot").checked };
  const names = typed.split("@");
  if (isGroup()) {
    // Whoever deletes a name from the words does not mean that person any more.
    const at = state.people.filter((one) => mentioned.has(one.id) && names.some((name) => name.startsWith(one.nick)));
    Object.assign(body, { at: at.map((one) => one.id), client: $("client").value });
  }
  if (quoted) Object.assign(body, { quote: quoted.id, bare_quote: $("bare-quote").checked });
  const before = quoted;
  quoted = null;
  if (typed) { mentioned.clear(); fill(""); tell(""); }
  drawStrips();
  drawMentions();
  return push({ prepare, typed, alone, body, before });
}

function push(message) {
  const { prepare, typed, alone, body, before } = message;
  const done = sending.then(async () => {
    await call("/_/say", { method: "POST", body: { ...body, ...await prepare() } });
    tell("");
  }).catch((error) => {
    const words = `${alone ? t("unsent") : t("unsentOther")}${error.message} `;
    if (alone) {
      // What was not sent before it is in the box already, and stays before it; what was begun since comes after.
      const rest = $("message").value;
      fill(!rest ? typed : $("unsent").querySelector(".words") ? `${rest}\n${typed}` : `${typed}\n${rest}`);
      quoted ||= before;
      for (const id of body.at || []) mentioned.add(id);
      drawStrips();
      drawMentions();
      tell(words);
    } else {
      tell(words, () => push(message));
    }
    return false;
  });
  sending = done;
  return done;
}

function send(text) {
  const said = text.trim();
  if (said) deliver(async () => ({ text: said }), text, true);
}

function suggest(text) {
  // A draft that lies in the box is not the suggestion's business.
  deliver(async () => ({ text }));
}

// Of messages that mention a robot only words and pictures exist; all else robots get when somebody quotes it.
const unheard = () => (isGroup() ? { at_robot: false } : {});

function attach(kind) {
  if (kind === "picture") return $("pictures").click();
  if (kind === "file") return $("file").click();
  const typed = kind === "audio" || kind === "document" || kind === "unknown" ? $("message").value : "";
  const text = typed.trim();
  const fields = {
    audio: { msgtype: "audio", text: text || t("sampleSpeech") }, silence: { msgtype: "audio", text: "" }, video: { msgtype: "video" },
    document: { msgtype: "interactiveCard", text: text || t("sampleDocument") }, unknown: { msgtype: "unknownMsgType", text },
  }[kind];
  return deliver(async () => ({ ...fields, ...unheard() }), typed);
}

async function upload(file) {
  return (await call(`/_/files?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file })).downloadCode;
}

function sendPictures(files) {
  const typed = $("message").value;
  const text = typed.trim();
  const group = isGroup();
  return deliver(async () => {
    const items = [];
    for (const file of files) {
      const code = await upload(file);
      items.push({ downloadCode: code, pictureDownloadCode: code });
    }
    // In a group a picture arrives beside the mention, as a rich text; alone it is a message of its own.
    if (items.length === 1 && !text && !group) return { msgtype: "picture", content: items[0] };
    const pictures = items.map((item) => ({ type: "picture", ...item }));
    return { msgtype: "richText", content: { richText: [...(text ? [{ text }] : []), ...pictures] } };
  }, typed);
}

function sendFile(file) {
  const quiet = unheard();
  return deliver(async () => {
    const content = { spaceId: "900001", fileName: file.name, downloadCode: await upload(file), fileId: "800001" };
    return { msgtype: "file", content, ...quiet };
  });
}

function forwardSelected() {
  const forward = [...selected.keys()];
  const named = !$("unnamed").checked;
  const quiet = unheard();
  selected.clear();
  for (const pick of document.querySelectorAll("[data-pick]")) pick.setAttribute("aria-pressed", "false");
  return deliver(async () => ({ forward, named, ...quiet }));
}

function listenToComposer() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send($("message").value);
    $("message").focus();
  });
  $("message").addEventListener("input", () => fill($("message").value));
  $("message").addEventListener("keydown", (event) => {
    // isComposing: Enter also confirms a word of a Chinese input method, and must not send then.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      $("composer").requestSubmit();
    }
  });
  $("attach").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    $("attach").open = false;
    $("attach").querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => { if (!$("attach").contains(event.target)) $("attach").open = false; });
  $("quote-off").addEventListener("click", () => { quoted = null; drawStrips(); });
  $("forward-off").addEventListener("click", () => { selected.clear(); drawStrips(); attempt(loadMessages); });
  $("forward-send").addEventListener("click", forwardSelected);
  for (const [id, doing] of [["pictures", sendPictures], ["file", (files) => sendFile(files[0])]]) {
    $(id).addEventListener("change", () => {
      const files = [...$(id).files];
      $(id).value = "";
      if (files.length) doing(files);
      $("message").focus();
    });
  }
  try { $("message").value = sessionStorage.getItem(DRAFT) || ""; } catch { /* Only a convenience. */ }
}
