// Cards as a client shows them: a text typed at the template's speed, its state, a button to stop it, thumbs at its end.
//
// Order of events: a card comes and is typed from its beginning; an update brings more, which is typed after it; what is
// pressed is told to the robot, whose answer comes as another update. A card that is there when the chat is opened is
// shown as it is.
"use strict";

const TYPING_STEP_MS = 50;

const cards = new Map(); // By message id, of this chat.
const still = matchMedia("(prefers-reduced-motion: reduce)");
let typedAt = 0;

function drawCard(message, whole) {
  const card = { body: make("div", "card-body"), foot: make("div", "card-foot"), state: make("span", "card-state"),
    buttons: make("span", "card-buttons"), note: make("div", "hint"), letters: [], shown: 0 };
  card.note.setAttribute("role", "status");
  card.foot.append(card.state, card.buttons);
  cards.set(message.id, card);
  updateCard(message, whole);
  return card;
}

function updateCard(message, whole = false) {
  const card = cards.get(message.id);
  const before = card.letters;
  card.view = message.card_view;
  card.letters = [...card.view.text];
  // What stands there already stays, as far as the new text says the same.
  let same = 0;
  while (same < card.shown && same < card.letters.length && before[same] === card.letters[same]) same += 1;
  const changed = same < Math.floor(card.shown) || !before.length;
  if (same < Math.floor(card.shown)) card.shown = same;
  if (whole || still.matches || !card.view.chars_per_s) card.shown = card.letters.length;
  drawCardState(card);
  if (changed || card.shown === card.letters.length) drawTyped(card);
  if (card.shown < card.letters.length) startTyping();
}

function drawTyped(card) {
  const typed = renderMarkdown(card.letters.slice(0, Math.floor(card.shown)).join(""));
  // A picture that is there already would be loaded anew with every letter.
  const pictures = new Map([...card.body.querySelectorAll("img")].map((one) => [one.src, one]));
  for (const image of typed.querySelectorAll("img")) if (pictures.has(image.src)) image.replaceWith(pictures.get(image.src));
  card.body.replaceChildren(typed);
  if (card.view.blank) card.body.append(make("p", "unshown", t("blank")));
  const busy = card.shown < card.letters.length || !isEnd(card);
  card.body.classList.toggle("busy", busy);
  // Read out when it is whole, not letter by letter.
  card.body.setAttribute("aria-busy", String(busy));
  keepAtEnd();
}

const isEnd = (card) => /^(finished|failed)$/.test(card.view.state);

function startTyping() {
  if (typedAt) return;
  typedAt = performance.now();
  setTimeout(typeOn, TYPING_STEP_MS);
}

function typeOn() {
  // By the clock and not by steps: a page in the background is late, and catches up.
  const now = performance.now();
  const passed = (now - typedAt) / 1000;
  typedAt = 0;
  let more = false;
  for (const card of cards.values()) {
    if (card.shown >= card.letters.length) continue;
    card.shown = Math.min(card.letters.length, card.shown + passed * card.view.chars_per_s);
    drawTyped(card);
    more ||= card.shown < card.letters.length;
  }
  if (more) startTyping();
}

function drawCardState(card) {
  const { view } = card;
  card.body.dataset.state = view.state;
  card.state.textContent = `${t(view.state)} · flowStatus ${view.flowStatus} · ${t("updates")} ${view.updates + view.puts}`;
  const wanted = !view.buttons ? [] : isEnd(card) ? ["like", "dislike"] : ["stop"];
  // The same buttons stay, so that whoever is at one of them stays there while the text grows.
  if (card.buttons.dataset.shown !== wanted.join()) {
    card.buttons.dataset.shown = wanted.join();
    card.buttons.replaceChildren(...wanted.map((action) => pressable(card, action)));
  }
  for (const button of card.buttons.children) button.setAttribute("aria-pressed", String(view.pressed[person] === button.dataset.press));
}

function pressable(card, action) {
  const button = press(`card-button ${action}`, "", async () => {
    if (button.getAttribute("aria-disabled") === "true") return;
    // Not disabled, which would take the focus away.
    button.setAttribute("aria-disabled", "true");
    card.note.textContent = "";
    try {
      const path = `/_/cards/${encodeURIComponent(card.view.outTrackId)}/press`;
      const { outcome } = await call(path, { method: "POST", body: { person, action } });
      card.note.textContent = t("outcomes")[outcome] || "";
    } catch (error) {
      card.note.textContent = error.message;
    }
    button.removeAttribute("aria-disabled");
  });
  button.append(icon(action));
  if (action === "stop") button.append(` ${t("stop")}`);
  button.dataset.press = action;
  button.setAttribute("aria-label", t(action));
  button.title = t(action);
  return button;
}
