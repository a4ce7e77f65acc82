"use strict";

const filled = (form, place) =>
  [...form.querySelectorAll(`[data-in=${place}]`)].filter((input) => input.value !== "");

const target = (form) => {
  const path = filled(form, "path").reduce(
    (path, input) => path.replace(`{${input.name}}`, encodeURIComponent(input.value)), form.dataset.path);
  const query = new URLSearchParams(filled(form, "query").map((input) => [input.name, input.value]));
  return query.size ? `${path}?${query}` : path;
};

const headersOf = (form) => {
  const key = document.getElementById("key").value;
  const given = filled(form, "header").map((input) => [input.name, input.value]);
  return Object.fromEntries([
    ["accept", "application/json, application/x-ndjson"],
    ...(form.elements.body ? [["content-type", "application/json"]] : []),
    ...(key ? [["authorization", `Bearer ${key}`]] : []),
    ...given,
  ]);
};

const pretty = (text) => {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
};

const send = async (form, shown) => {
  shown.hidden = false;
  shown.textContent = "…";
  const answer = await fetch(target(form), {
    method: form.dataset.method, headers: headersOf(form), body: form.elements.body?.value,
  });
  let text = "";
  const chunks = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let next = await chunks.read(); !next.done; next = await chunks.read()) {
    text += next.value;
    shown.textContent = `${answer.status}\n${pretty(text)}`;
  }
  shown.textContent = `${answer.status}\n${pretty(text)}`;
};

for (const form of document.querySelectorAll("form")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const shown = form.lastElementChild;
    send(form, shown).catch((error) => { shown.textContent = String(error); });
  });
}
