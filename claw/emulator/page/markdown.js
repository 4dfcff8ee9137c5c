// A small markdown renderer for what a robot says. It makes nodes and never markup: no text of a message is ever taken
// for HTML. Links lead to http and https only; pictures are those that the emulator itself holds.
"use strict";

const INLINE = new RegExp([
  "`([^`\\n]+)`",
  "(!)?\\[([^\\]\\n]{0,500})\\]\\(([^\\s()<>]{1,2000})\\)",
  "\\*\\*([^*\\n]+)\\*\\*",
  "~~([^~\\n]+)~~",
  "(?<![*\\w])\\*([^*\\s][^*\\n]*)\\*",
].join("|"), "g");
const QUOTES_MAX = 8;
const ENTITIES = { "&lt;": "<", "&gt;": ">", "&amp;": "&" };

// Outside of code DingTalk's clients read entities, by which a robot shows angle brackets as such. Text, never markup.
function plain(text) {
  return text.replace(/&(?:lt|gt|amp);/g, (entity) => ENTITIES[entity]);
}

// The address of a picture or a file that the emulator holds: a media id, or a URL of its own or of DingTalk's storage.
function stored(reference) {
  const path = (key) => `/_/files/${encodeURIComponent(key)}`;
  if (/^@[\w-]+$/.test(reference)) return path(reference);
  let url;
  try { url = new URL(reference, location.href); } catch { return null; }
  if (url.origin === "https://down.dingtalk.com" && /^\/media\/@[\w-]+$/.test(url.pathname)) return path(url.pathname.slice(7));
  const ours = [location.origin, state && state.url].includes(url.origin);
  return ours && /^\/files\/[@\w-]+$/.test(url.pathname) ? path(url.pathname.slice(7)) : null;
}

function picture(address, alt) {
  const image = make("img");
  image.alt = alt || t("picture");
  image.src = address;
  // What a browser cannot show (HEIC, or what is gone from the storage) is at least named.
  image.addEventListener("error", () => image.replaceWith(make("span", "unshown", `🖼 ${image.alt}`)));
  image.addEventListener("load", keepAtEnd);
  return image;
}

function anchor(address, label) {
  const link = make("a");
  link.href = address;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  link.append(label);
  return link;
}

function renderInline(parent, text) {
  let end = 0;
  for (const hit of text.matchAll(INLINE)) {
    const [whole, code, bang, label, target, strong, struck, em] = hit;
    parent.append(plain(text.slice(end, hit.index)));
    end = hit.index + whole.length;
    if (code) parent.append(make("code", "", code));
    else if (target) parent.append(renderTarget(bang, label, target) || whole);
    else parent.append(renderInline(make(strong ? "strong" : struck ? "del" : "em"), strong || struck || em));
  }
  parent.append(plain(text.slice(end)));
  return parent;
}

function renderTarget(bang, label, target) {
  const address = bang && stored(target);
  if (address) return picture(address, label);
  if (!/^https?:\/\//i.test(target) || !(label || bang)) return null;
  return anchor(target, renderInline(document.createDocumentFragment(), label || target));
}

function renderTable(rows) {
  const table = make("table");
  const split = (row) => row.trim().replace(/^\||\|$/g, "").split("|");
  const line = (row, tag) => {
    const tr = make("tr");
    for (const cell of split(row)) tr.append(renderInline(make(tag), cell.trim()));
    return tr;
  };
  const head = make("thead");
  const body = make("tbody");
  head.append(line(rows[0], "th"));
  body.append(...rows.slice(2).map((row) => line(row, "td")));
  table.append(head, body);
  return table;
}

function renderList(lines, mark, tag) {
  const list = make(tag);
  for (const line of lines) list.append(renderInline(make("li"), line.replace(mark, "")));
  return list;
}

function renderCode(lines) {
  const block = make("pre");
  block.tabIndex = 0; // It scrolls, and must do so by keyboard, too.
  block.append(make("code", "", lines.join("\n")));
  return block;
}

function renderMarkdown(text, depth = 0) {
  const lines = String(text).replace(/\r\n?/g, "\n").split("\n");
  const out = document.createDocumentFragment();
  let paragraph = [];
  const flush = () => {
    if (!paragraph.length) return;
    const node = make("p");
    paragraph.forEach((line, n) => { if (n) node.append(make("br")); renderInline(node, line.trim()); });
    out.append(node);
    paragraph = [];
  };
  const take = (i, pattern) => {
    let end = i;
    while (end < lines.length && pattern.test(lines[end])) end += 1;
    return end;
  };
  for (let i = 0; i < lines.length; ) {
    const line = lines[i];
    const fence = line.match(/^\s*(`{3,}|~{3,})/);
    const heading = line.match(/^(#{1,6})\s+(.*)$/);
    const mark = [/^\s*[-*+]\s+/, /^\s*\d+[.)]\s+/].find((each) => each.test(line));
    let end = i + 1;
    if (fence) {
      flush();
      while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end += 1;
      out.append(renderCode(lines.slice(i + 1, end)));
      end += 1;
    } else if (heading) {
      flush();
      out.append(renderInline(make("h3", `level-${heading[1].length}`), heading[2]));
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      flush();
      out.append(make("hr"));
    } else if (/^\s*>/.test(line) && depth < QUOTES_MAX) {
      flush();
      end = take(i, /^\s*>/);
      const quote = make("blockquote");
      quote.append(renderMarkdown(lines.slice(i, end).map((one) => one.replace(/^\s*> ?/, "")).join("\n"), depth + 1));
      out.append(quote);
    } else if (mark) {
      flush();
      end = take(i, mark);
      out.append(renderList(lines.slice(i, end), mark, /^\s*\d/.test(line) ? "ol" : "ul"));
    } else if (/^\s*\|.*\|\s*$/.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[i + 1] || "")) {
      flush();
      end = take(i, /^\s*\|.*\|\s*$/);
      out.append(renderTable(lines.slice(i, end)));
    } else if (!line.trim()) {
      flush();
    } else {
      paragraph.push(line);
    }
    i = end;
  }
  flush();
  return out;
}
