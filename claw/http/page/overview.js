// What changes by itself: connection, inbox, model, budget, replicas, the last round trips. Drawn anew with each event.
import { card, facts, make, span, t, tell, when, word } from "./core.js";

// A source that failed says so in its own place: a store that nobody can read is no empty one.
const lost = (part) => (part && part.error ? [make("p", { class: "figure bad", text: t("unread") }), make("p", { text: part.error })] : null);

const named = (state) => t("states")[state] || state || "?";

function connection(stream) {
  const failed = lost(stream);
  if (failed) return card(t("connection"), ...failed);
  const history = (stream.history || []).slice(0, 8).map((each) => make("li", {}, make("time", { text: when(each.at) }), make("b", { text: named(each.state), data: { state: each.state } })));
  return card(t("connection"),
    make("p", { class: "figure", text: named(stream.state), data: { state: stream.state || "" } }),
    facts([[t("since"), when(stream.since)], [t("slots"), `${stream.connected ?? "?"} / ${(stream.slots || []).length}`], stream.last_error ? [t("reason"), stream.last_error] : null]),
    history.length ? make("details", {}, make("summary", { text: t("history") }), make("ol", { class: "history" }, ...history)) : null);
}

function inbox(status) {
  const box = status.inbox || {};
  const failed = lost(box);
  if (failed) return card(t("inbox"), ...failed);
  return card(t("inbox"),
    make("p", { class: `figure ${box.stuck ? "bad" : ""}`, text: box.stuck ? t("stuck") : String((box.pending ?? 0) - (box.leased ?? 0)) }, make("small", { text: ` ${t("pending")}` })),
    facts([[t("turns"), String(status.turns_in_flight ?? "?")], [t("oldest"), span(box.oldest_age_s)], [t("deadCount"), make("a", { href: "#dead", text: String(box.dead ?? "?") })]]));
}

function model(status) {
  const health = status.model || {};
  const failed = lost(health);
  if (failed) return card(t("model"), ...failed);
  const asked = health.last_success || health.last_error;
  const figure = health.up === false ? "down" : asked ? "up" : "unknown";
  const error = health.last_error;
  return card(t("model"),
    make("p", { class: `figure ${figure === "down" ? "bad" : ""}`, text: t(figure) }),
    facts([[t("modelOf"), status.settings?.model?.name], [t("lastSuccess"), when(health.last_success)], error ? [t("lastError"), `${when(error.at)} ${error.reason}`] : null, error?.remedy ? [t("remedy"), error.remedy] : null]));
}

function budget(status) {
  const month = status.budget || {};
  const failed = lost(month);
  if (failed) return card(t("budget"), ...failed);
  const bar = (name) => {
    const quota = month[name];
    if (!quota) return null;
    const part = quota.limit ? Math.min(1, quota.used / quota.limit) : 0;
    const meter = make("meter", { min: "0", max: "1", low: "0.8", high: "0.95", optimum: "0", value: String(part), "aria-label": t(name) });
    return make("div", { class: "quota" }, make("span", { text: t(name) }), meter, make("b", { text: quota.limit ? `${quota.used} / ${quota.limit}` : `${quota.used} (${t("unlimited")})` }), quota.limit ? make("small", { text: t("left", Math.max(0, quota.limit - quota.used)) }) : null);
  };
  // What DingTalk itself says counts more than our sums: an administrator may have capped the robot.
  const refused = (month.refused || []).map((name) => make("p", { class: "refused", text: t("quotaRefused", t(name)) }));
  return card(`${t("budget")} ${month.month || ""}`, ...refused, bar("openapi"), bar("webhook"), facts([[t("plan"), month.plan]]));
}

function replicas(status) {
  const failed = lost(status.replicas);
  if (failed) return card(t("replicas"), ...failed);
  const all = Array.isArray(status.replicas) ? status.replicas : [];
  return card(t("replicas"), make("ul", { class: "plain" }, ...all.map((each) => make("li", {}, make("b", { text: each.id || each.replica || "?" }), make("span", { text: ` ${each.version || ""} · ${each.healthy === false ? t("notHealthy") : t("healthy")} · ${when(each.seen_at)}` })))));
}

const PARTS = [["queue_s", "queue"], ["model_s", "asking"], ["reply_s", "reply"]];

function trip(each, longest) {
  const bar = make("div", { class: "trip-bar", role: "img", "aria-label": PARTS.map(([field, name]) => `${t(name)} ${span(each[field])}`).join(", ") });
  for (const [field, name] of PARTS) {
    const part = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    part.setAttribute("class", name);
    // By an attribute and not by a style: the policy of this page allows none.
    part.setAttribute("width", `${Math.max(0, (each[field] / longest) * 100)}%`);
    const hint = document.createElementNS("http://www.w3.org/2000/svg", "title");
    hint.textContent = `${t(name)} ${span(each[field])}`;
    part.append(hint);
    bar.append(part);
  }
  const copy = each.trace_id ? make("button", { type: "button", class: "link mono", title: t("copy"), text: each.trace_id.slice(0, 8), on: { click: () => navigator.clipboard?.writeText(each.trace_id).then(() => tell(t("copied"))) } }) : null;
  return make("li", { class: "trip" },
    make("time", { text: when(each.at) }),
    make("span", { class: `badge ${each.outcome}`, text: word(each.outcome) }),
    make("span", { class: "where", text: each.kind === "message" ? each.chat || t("direct") : word(each.kind) }),
    bar,
    make("b", { class: "sum", text: span(each.total_s) }),
    make("span", { class: "trace" }, copy, each.attempts > 1 ? make("small", { text: ` ${t("attempts", each.attempts)}` }) : null));
}

export function trips(status) {
  const failed = lost(status.round_trips);
  if (failed) return failed;
  const all = Array.isArray(status.round_trips) ? status.round_trips : [];
  if (!all.length) return [make("p", { class: "empty", text: t("noTrips") })];
  const longest = Math.max(0.05, ...all.map((each) => each.total_s));
  const legend = make("p", { class: "legend" }, ...PARTS.map(([, name]) => make("span", { class: name, text: t(name) })));
  return [legend, make("ol", { class: "trip-list" }, ...all.map((each) => trip(each, longest)))];
}

export function overview(status) {
  const warnings = (status.warnings || []).map((each) => make("li", { text: each }));
  return [
    warnings.length ? make("section", { class: "card warned wide" }, make("h3", { text: t("warnings") }), make("ul", {}, ...warnings)) : null,
    connection(status.stream || {}), inbox(status), model(status), budget(status), replicas(status),
  ].filter(Boolean);
}
