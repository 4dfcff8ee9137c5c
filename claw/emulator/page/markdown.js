// A small markdown renderer for what a robot says. Everything is escaped first; only then do marks become tags, so no
// text of a message is ever taken for HTML. Links lead to http and https only.
"use strict";

const escapeHtml = (text) =>
  text.replace(/[&<>"']/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" })[c]);

function inlineMarkdown(escaped) {
  const kept = [];
  const keep = (html) => `\u0000${kept.push(html) - 1}\u0000`;
  return escaped
    .replace(/\u0000/g, "")
    .replace(/`([^`\n]+)`/g, (_, code) => keep(`<code>${code}</code>`))
    .replace(/!\[([^\]]*)\]\(((?:@|\/files\/)[\w@/-]+)\)/g, (_, alt, id) =>
      keep(`<img alt="${alt}" src="/files/${id.replace("/files/", "")}">`))
    .replace(/!?\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/g, (_, label, url) =>
      keep(`<a href="${url}" target="_blank" rel="noopener noreferrer">${label}</a>`))
    .replace(/\*\*([^*\n]+)\*\*/g, "<strong>$1</strong>")
    .replace(/(^|[^*\w])\*([^*\s][^*\n]*)\*/g, "$1<em>$2</em>")
    .replace(/~~([^~\n]+)~~/g, "<del>$1</del>")
    .replace(/\u0000(\d+)\u0000/g, (_, n) => kept[n]);
}

function tableMarkdown(rows) {
  const cells = (row) => row.replace(/^\s*\||\|\s*$/g, "").split("|").map((cell) => inlineMarkdown(escapeHtml(cell.trim())));
  const head = cells(rows[0]).map((cell) => `<th>${cell}</th>`).join("");
  const body = rows.slice(2).map((row) => `<tr>${cells(row).map((cell) => `<td>${cell}</td>`).join("")}</tr>`).join("");
  return `<table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table>`;
}

function renderMarkdown(text) {
  const lines = String(text).replace(/\r\n?/g, "\n").split("\n");
  const out = [];
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) out.push(`<p>${paragraph.map((line) => inlineMarkdown(escapeHtml(line.trim()))).join("<br>")}</p>`);
    paragraph = [];
  };
  const take = (i, pattern) => {
    let end = i;
    while (end < lines.length && pattern.test(lines[end])) end += 1;
    return end;
  };
  for (let i = 0; i < lines.length; ) {
    const line = lines[i];
    const fence = line.match(/^\s*(`{3,}|~{3,})\s*([\w+-]*)/);
    if (fence) {
      flush();
      let end = i + 1;
      while (end < lines.length && !lines[end].trim().startsWith(fence[1])) end += 1;
      out.push(`<pre><code>${escapeHtml(lines.slice(i + 1, end).join("\n"))}</code></pre>`);
      i = end + 1;
      continue;
    }
    const heading = line.match(/^(#{1,6})\s+(.*)$/);
    if (heading) {
      flush();
      const level = Math.min(6, heading[1].length + 2);
      out.push(`<h${level}>${inlineMarkdown(escapeHtml(heading[2]))}</h${level}>`);
      i += 1;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      flush();
      out.push("<hr>");
      i += 1;
    } else if (/^\s*>/.test(line)) {
      flush();
      const end = take(i, /^\s*>/);
      out.push(`<blockquote>${renderMarkdown(lines.slice(i, end).map((one) => one.replace(/^\s*> ?/, "")).join("\n"))}</blockquote>`);
      i = end;
    } else if (/^\s*[-*+]\s+/.test(line) || /^\s*\d+[.)]\s+/.test(line)) {
      flush();
      const ordered = /^\s*\d/.test(line);
      const mark = ordered ? /^\s*\d+[.)]\s+/ : /^\s*[-*+]\s+/;
      const end = take(i, mark);
      const items = lines.slice(i, end).map((one) => `<li>${inlineMarkdown(escapeHtml(one.replace(mark, "")))}</li>`).join("");
      out.push(ordered ? `<ol>${items}</ol>` : `<ul>${items}</ul>`);
      i = end;
    } else if (/^\s*\|.*\|\s*$/.test(line) && /^\s*\|[\s:|-]+\|\s*$/.test(lines[i + 1] || "")) {
      flush();
      const end = take(i, /^\s*\|.*\|\s*$/);
      out.push(tableMarkdown(lines.slice(i, end)));
      i = end;
    } else if (!line.trim()) {
      flush();
      i += 1;
    } else {
      paragraph.push(line);
      i += 1;
    }
  }
  flush();
  return out.join("");
}
