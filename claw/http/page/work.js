// What an operator does: dead letters, chats, policies, usage, audit, restart. Drawn when asked for, so that no event
// takes away what somebody is typing.
import { act, call, card, confirmed, facts, language, make, open, t, table, tell, when, word } from "./core.js";

const select = (name, values, current, blank) => make("select", { name, "aria-label": name }, ...[["", blank], ...values.map((each) => [each, word(each)])].filter(([, text]) => text !== null).map(([value, text]) => { const option = make("option", { value, text }); option.selected = value === (current ?? ""); return option; }));
const labelled = (text, control) => make("label", { class: "field" }, make("span", { text }), control);

export async function dead(again) {
  const { total, letters } = await call("/api/dead?limit=100");
  if (!letters.length) return [make("p", { class: "empty", text: t("noDead") })];
  const list = letters.map((letter) => {
    const retry = make("button", { type: "button", class: "primary", text: t(letter.has_answer ? "sendAgain" : "askAgain"), on: { click: act(async () => { await call(`/api/dead/${letter.id}/retry`, { method: "POST" }); tell(t("retried")); await again(); }) } });
    const drop = make("button", { type: "button", class: "quiet", text: t("drop"), on: { click: act(async () => { if (!(await confirmed(t("dropSure")))) return; await call(`/api/dead/${letter.id}`, { method: "DELETE" }); tell(t("dropped")); await again(); }) } });
    const where = letter.chat ? `${word(letter.chat.kind)} ${letter.chat.title || ""}` : "–";
    return make("li", { class: "card letter", data: { letter: letter.id } },
      make("p", { class: "line" }, make("b", { text: letter.person?.nick || letter.person?.id || word(letter.kind) }), make("span", { text: where }), make("time", { text: when(letter.buried_at) }), make("small", { text: t("attempts", letter.attempts) })),
      letter.question ? make("blockquote", { text: letter.question }) : null,
      facts([[t("cause"), letter.error]]),
      letter.answer ? make("details", {}, make("summary", { text: t("answer") }), make("pre", { text: letter.answer })) : null,
      make("p", { class: "acts" }, retry, drop));
  });
  return [make("p", { class: "hint", text: t("shown", letters.length, total) }), make("ul", { class: "plain" }, ...list)];
}

export async function chats(again) {
  const { chats: all, models, defaults } = await call("/api/chats");
  if (!all.length) return [make("p", { class: "empty", text: t("noChats") })];
  return all.map((chat) => {
    const own = chat.settings;
    const policies = chat.kind === "group" ? ["open", "allowlist", "disabled"] : ["open", "allowlist", "owner"];
    const form = make("form", { class: "settings" },
      labelled(t("policyOf"), select("policy", policies, own.policy, t("byDefault", ""))),
      labelled(t("modelOf"), select("model", models.slice(1), own.model, t("byDefault", defaults.model))),
      chat.kind === "group" ? labelled(t("session"), select("session", ["shared", "per_user"], own.session, t("byDefault", word(defaults.session)))) : null,
      labelled(t("mode"), select("reply_mode", ["markdown", "card", "auto"], own.reply_mode, t("byDefault", word(defaults.reply_mode)))),
      labelled(t("prompt"), make("textarea", { name: "prompt", rows: "2", maxlength: "4000" }, own.prompt || "")),
      make("button", { class: "primary", text: t("save") }));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const body = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value || null]));
      try { await call(`/api/chats/${encodeURIComponent(chat.id)}`, { method: "PUT", body }); tell(t("saved")); await again(); } catch (fault) { tell(fault.message); }
    });
    const marks = Object.entries(own).filter(([, value]) => value).map(([name, value]) => make("span", { class: "badge", text: name === "prompt" ? t("prompt") : word(value) }));
    return make("details", { class: "card chat", data: { chat: chat.id } },
      make("summary", {}, make("b", { text: chat.title || chat.id }), make("span", { class: "badge", text: word(chat.kind) }), ...marks, make("small", { text: `${chat.messages} · ${when(chat.last_seen)}` })),
      form);
  });
}

export async function policy(again) {
  const rules = await call("/api/policy");
  const mark = (name) => (rules.changed_at_run_time.includes(name) ? ` · ${t("changed")}` : "");
  const choose = (values) => values.map((each) => [each, each === "owner" ? t("ownerOnly") : word(each)]);
  const pick = (name, values, current) => make("select", { name }, ...[...choose(values), ["", t("reset")]].map(([value, text]) => { const option = make("option", { value, text }); option.selected = value === current; return option; }));
  const lines = (name, people) => make("textarea", { name, rows: "4", spellcheck: "false" }, people.join("\n"));
  const form = make("form", { class: "settings" },
    labelled(t("groupPolicy") + mark("group"), pick("group_policy", rules.group_policies, rules.group_policy)),
    labelled(t("directPolicy") + mark("direct"), pick("direct_policy", rules.direct_policies, rules.direct_policy)),
    labelled(t("allowed"), lines("allowed", rules.allowed)),
    labelled(t("deniedList"), lines("denied", rules.denied)),
    make("button", { class: "primary", text: t("save") }));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const said = new FormData(form);
    const people = (name) => said.get(name).split(/[\s,，;；]+/).filter(Boolean);
    const body = { allowed: people("allowed"), denied: people("denied") };
    for (const name of ["group_policy", "direct_policy"]) if (said.get(name) !== rules[name]) body[name] = said.get(name) || null;
    if (body.group_policy === "disabled" && !(await confirmed(t("disableSure")))) return;
    try { await call("/api/policy", { method: "PUT", body }); tell(t("saved")); await again(); } catch (fault) { tell(fault.message); }
  });
  const listed = [...rules.listed_by_environment.group, ...rules.listed_by_environment.direct];
  return [card(t("owner"), facts([[rules.owner.join(", ") || "–", t("ownerFrom")[rules.owner_from]], listed.length ? [t("listedByEnv"), listed.join(", ")] : null])), make("section", { class: "card" }, form)];
}

async function download(path, name) {
  const file = await (await open(path)).blob();
  const link = make("a", { href: URL.createObjectURL(file), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function sums(rows, key, label) {
  const all = new Map();
  for (const row of rows) {
    const sum = all.get(row[key]) || { label: "", questions: 0, tokens_in: 0, tokens_out: 0, up: 0, down: 0 };
    sum.label = row[label] || sum.label;
    for (const name of ["questions", "tokens_in", "tokens_out", "up", "down"]) sum[name] += row[name];
    all.set(row[key], sum);
  }
  return [...all].sort(([, a], [, b]) => b.questions - a.questions).slice(0, 100);
}

export async function usage() {
  const days = 30;
  const { rows } = await call(`/api/usage?days=${days}`);
  if (!rows.length) return [make("p", { class: "empty", text: t("noUsage") })];
  const format = new Intl.NumberFormat(language() === "zh" ? "zh-CN" : "en-GB");
  const columns = [t("questions"), t("tokens"), t("votes")];
  const lines = (key, label) => sums(rows, key, label).map(([id, sum]) => [id === "*" ? t("others") : sum.label || id, format.format(sum.questions), `${format.format(sum.tokens_in)} / ${format.format(sum.tokens_out)}`, `${sum.up} / ${sum.down}`]);
  return [
    make("p", { class: "hint" }, make("span", { text: t("days", days) }), make("button", { type: "button", class: "quiet", text: t("csv"), on: { click: act(() => download(`/api/usage?days=${days}&format=csv`, "usage.csv")) } })),
    card(t("byPerson"), table([t("person"), ...columns], lines("person", "name"))),
    card(t("byChat"), table([t("chat"), ...columns], lines("chat", "title"))),
  ];
}

export async function audit() {
  const { entries } = await call("/api/audit?limit=200");
  if (!entries.length) return [make("p", { class: "empty", text: t("noAudit") })];
  return [
    make("p", { class: "hint" }, make("button", { type: "button", class: "quiet", text: t("csv"), on: { click: act(() => download("/api/audit?limit=10000&format=csv", "audit.csv")) } })),
    make("section", { class: "card" }, table([t("when"), t("actor"), t("action"), t("target"), t("detail")], entries.map((each) => [when(each.at), each.actor, each.action, each.target, each.detail]))),
  ];
}

export async function restart() {
  const begin = (scope) => act(async () => { if (scope === "process" && !(await confirmed(t("restartSure")))) return; await call(`/restart?scope=${scope}`, { method: "POST" }); tell(t("restarting")); });
  return [
    card(t("restartStream"), make("p", { text: t("restartStreamHint") }), make("button", { type: "button", class: "primary", text: t("restartStream"), on: { click: begin("stream") } })),
    card(t("restartProcess"), make("p", { text: t("restartProcessHint") }), make("button", { type: "button", class: "primary danger", text: t("restartProcess"), on: { click: begin("process") } })),
  ];
}
