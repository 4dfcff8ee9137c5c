// Without credentials there is one thing to do: scan a code, by which DingTalk makes the app. Order of events: a button
// begins the scan; the code is shown until somebody has agreed, has refused, or it has expired; then claw starts.
import { act, call, card, facts, make, span, t } from "./core.js";

const LOOK_MS = 1500;

function scan(again) {
  return make("button", { type: "button", class: "primary", id: "scan", text: t("setupBegin"), on: { click: act(async () => { await call("/api/setup", { method: "POST" }); again(); }) } });
}

function shown(code) {
  return [
    make("img", { class: "qr", src: code.image, alt: t("setupCode") }),
    make("p", { text: t("setupScan") }),
    facts([[t("setupUserCode"), make("b", { class: "mono", text: code.user_code })], [t("setupLeft"), span(code.expires_in_s)]]),
    make("p", {}, make("a", { href: code.address, target: "_blank", rel: "noopener noreferrer", text: t("setupOpen") })),
  ];
}

function step(setup, again) {
  if (setup.trouble) return [make("p", { class: "figure bad", text: t("setupStore") }), make("p", { text: setup.trouble })];
  if (setup.state === "scanning" && setup.code) return shown(setup.code);
  if (setup.state !== "waiting") return [make("p", { class: "figure", text: t("setupStates")[setup.state] || setup.state })];
  const ended = setup.ended ? make("p", { class: "refused", role: "alert", text: t("setupEnds")[setup.ended.reason]?.(setup.ended.detail) || setup.ended.reason }) : null;
  return [ended, make("p", { text: t("setupWhy") }), scan(again), make("p", { class: "hint", text: t("setupElse") })].filter(Boolean);
}

// Draws until claw serves with credentials; `refuse` hears a fault of the API, `ready` the first status of the whole claw.
export function setUp(first, content, { refuse, ready, away, signal }) {
  let drawn = "";
  let timer;
  const draw = (setup) => {
    // The time that is left moves alone: nobody's focus is taken for it.
    const key = JSON.stringify({ ...setup, code: setup.code && setup.code.user_code }) + t("lang");
    const left = content.querySelector("dl dd:last-of-type");
    if (key === drawn) { if (left && setup.code) left.textContent = span(setup.code.expires_in_s); return; }
    drawn = key;
    content.className = "setup";
    content.replaceChildren(make("h2", { text: t("setupTitle") }), card(t("setupApp"), ...step(setup, look)));
  };
  async function look() {
    clearTimeout(timer);
    if (signal.aborted) return;
    try {
      const status = await call("/status");
      away(false);
      if (!status.setup) { ready(status); return; }
      draw(status.setup);
    } catch (fault) {
      if (signal.aborted || refuse(fault)) return;
      // Between the set-up and the whole claw the port is closed for a moment: that is how it should be.
      away(true);
    }
    timer = setTimeout(look, LOOK_MS);
  }
  draw(first);
  timer = setTimeout(look, LOOK_MS);
}
