// The panel beside the chat: connections, frames, one-shot faults, switches, and the service behind the robot.
"use strict";

const FRAMES_SHOWN = 60;
const VIOLATIONS_SHOWN = 5;

let switches = [];
let paused = false;

const seconds = (age) => (age < 60 ? `${Math.floor(age)} s` : age < 3600 ? `${Math.floor(age / 60)} min` : `${(age / 3600).toFixed(1)} h`);

function drawConnections() {
  const live = state.connections;
  const open = live.filter((one) => one.state === "open").length;
  $("live").textContent = open ? `${t("online")} · ${open}` : t("offline");
  $("live").classList.toggle("on", open > 0);
  $("counts").textContent = `${t("registrations")} ${state.registrations.count} · ${t("pushes")} ${state.pushes.count}`;
  drawViolations();
  drawMonth();
  if (!live.length) {
    const empty = make("div", "nobody");
    empty.append(...whyNobody().map((words, n) => make(n ? "span" : "b", "", words)));
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

// How much of the month's quotas is used up, and how fast calls came at worst.
function drawMonth() {
  const { month, openapi } = state;
  $("month").replaceChildren(...[
    ["OpenAPI", month.openapi, month.openapi_month_limit],
    ["Webhook + Stream", month.webhook + month.pushed, month.stream_month_limit],
    [t("webhooks"), month.webhook, month.webhook_month_cap],
  ].map(([name, used, limit]) => {
    const row = make("div", limit && used >= limit ? "quota over" : "quota");
    row.append(make("span", "", name), make("b", "", limit ? `${used} / ${limit}` : String(used)));
    if (limit) {
      const bar = make("progress");
      bar.max = limit;
      bar.value = Math.min(used, limit);
      bar.setAttribute("aria-label", name);
      row.append(bar);
    }
    return row;
  }));
  const apis = Object.entries(openapi.calls).sort((a, b) => b[1] - a[1]);
  $("peaks").hidden = !apis.length;
  $("peaks-list").replaceChildren(...apis.map(([api, calls]) => {
    const row = make("div", "quota");
    row.append(make("span", "", api.replace("/v1.0/", "")), make("b", "", `${calls} · ${openapi.peaks[api] || 0}/s`));
    return row;
  }));
}

// A robot that is refused needs other advice than one that never came.
function whyNobody() {
  const { count, last_status: status } = state.registrations;
  if (!count) return [t("none"), t("noneHint")];
  if (status >= 400) return [`${t("refused")} HTTP ${status}`, state.faults.gateway_status ? t("refusedBySwitch") : t("refusedHint")];
  return [t("left"), t("leftHint")];
}

function drawViolations() {
  const { count, last } = state.violations;
  $("violations").hidden = !count;
  $("violations-count").textContent = `${t("violations")} ${count}`;
  $("violations-last").replaceChildren(...last.slice(-VIOLATIONS_SHOWN).reverse().map(({ connection, what }) => {
    const known = lang === "zh" && VIOLATIONS_ZH.find(([pattern]) => pattern.test(what));
    return make("li", "", `${connection}：${known ? what.replace(...known) : what}`);
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
    const button = press("action", words[lang], () => attempt(async () => {
      await call(`/_/actions/${name}`, { method: "POST", body: {} });
      note(`${words[lang]} · ${t("done")}`);
      await refresh();
    }));
    button.dataset.action = name;
    button.title = name;
    return button;
  }));
}

// What a person has just switched and the emulator has not answered yet: a state that was
// read before the switch and arrives after it must not turn the switch back under the hand.
const unanswered = new Map();

function control(one) {
  let input;
  if (one.choices.length) {
    input = make("select");
    for (const value of one.choices) input.append(choice(String(value), value === 0 || value === "" ? "–" : String(value), false));
  } else {
    input = make("input");
    input.type = one.type === "bool" ? "checkbox" : one.type === "str" ? "text" : "number";
    if (input.type === "number") input.step = one.type === "int" ? "1" : "any";
  }
  input.dataset.fault = one.name;
  input.addEventListener("change", () => attempt(async () => {
    let value = one.type === "bool" ? input.checked : input.value;
    if (one.type === "int" || one.type === "float") value = input.value === "" ? (one.name === "disconnect_close_after" ? null : one.default) : Number(input.value);
    const mine = Symbol(one.name);
    unanswered.set(one.name, { value, mine });
    try {
      await call("/_/faults", { method: "POST", body: { [one.name]: value } });
      note("");
    } finally {
      // Of two changes in a row only the last one's answer settles what is shown.
      if (unanswered.get(one.name)?.mine === mine) unanswered.delete(one.name);
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
    const value = unanswered.has(one.name) ? unanswered.get(one.name).value : state.faults[one.name];
    if (one.type === "bool") input.checked = value;
    else if (document.activeElement !== input) input.value = value === null ? "" : String(value);
    input.closest(".fault").classList.toggle("on", value !== one.default);
  }
}

async function drawService() {
  if (!state.service_url) return $("service").replaceChildren();
  // Asked for by the emulator: another origin's answer is none of a page's business.
  const found = await call("/_/ready").catch(() => ({ status: 0, reason: "" }));
  const ready = found.status === 200;
  const link = anchor(`${state.service_url.replace(/\/$/, "")}/ready`, `/ready ${found.status || "–"}`);
  link.className = ready ? "pill on" : "pill bad";
  link.title = t("readyAbout");
  $("service").replaceChildren(link, make("small", "reason", ready ? t("ready") : found.reason || (found.status ? t("notReady") : t("noService"))));
}
