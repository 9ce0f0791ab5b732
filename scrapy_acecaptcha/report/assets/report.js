"use strict";

// Everything that came from outside is put on the page by textContent, never as markup.

const PAGE_SIZE = 48;
const element = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");
const data = JSON.parse(element("data").textContent);
const calls = data.calls.map((fields, index) => {
  const [time, outcome, host, spider, url, answer, seconds, code, traceId, image] = fields;
  return {
    index, time, url, answer, seconds, code, traceId, image,
    outcome: data.outcomes[outcome], host: data.hosts[host], spider: data.spiders[spider],
  };
});

const view = { outcome: "", host: "", search: "", order: "newest", page: 0, found: calls };

// Images lie in blocks of text, a line each, that are taken apart only when they are shown. The
// blocks follow this script, so the last one that is there may not be complete yet.

const blocks = document.getElementsByClassName("images");
const unpacked = new Map();

function imageUrl(index) {
  const number = Math.floor(index / data.images_per_block);
  const loading = document.readyState === "loading";
  if (blocks.length <= number + (loading ? 1 : 0)) return null;
  if (!unpacked.has(number)) unpacked.set(number, blocks[number].textContent.split("\n"));
  return "data:" + unpacked.get(number)[index % data.images_per_block];
}

// Writing

function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}

function written(time) {
  return new Date(time * 1000).toISOString().slice(0, 19).replace("T", " ");
}

function duration(seconds) {
  if (seconds === null) return "";
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 100 ? `${seconds.toFixed(2)} s` : `${Math.round(seconds)} s`;
}

function answerText(call) {
  if (call.answer === null) return call.code ?? "cut off";
  return call.answer === "" ? "(nothing)" : call.answer;
}

function picture(call) {
  if (call.image < 0) return document.createTextNode(data.no_image[-call.image - 1]);
  const img = make("img");
  img.alt = "";
  img.decoding = "async";
  const url = imageUrl(call.image);
  if (url) img.src = url;
  return img;
}

function card(call) {
  const item = make("li");
  const button = make("button", `card ${call.outcome}`);
  button.type = "button";
  button.dataset.index = call.index;
  const frame = make("span", "picture");
  frame.append(picture(call));
  const facts = make("span", "facts");
  facts.append(make("span", call.answer ? "answer" : "answer none", answerText(call)));
  const verdict = make("span", "line");
  verdict.append(make("span", "verdict", call.outcome));
  verdict.append(make("time", "", written(call.time).slice(5, 16)));
  const place = make("span", "line");
  place.append(make("span", "", call.host));
  place.append(make("span", "seconds", duration(call.seconds)));
  facts.append(verdict, place);
  button.append(frame, facts);
  item.append(button);
  return item;
}

// Filtering

function haystack(call) {
  call.text ??= [call.answer, call.host, call.url, call.spider, call.code, call.traceId]
    .join("\n")
    .toLowerCase();
  return call.text;
}

const ORDERS = {
  newest: (a, b) => a.index - b.index,
  oldest: (a, b) => b.index - a.index,
  slowest: (a, b) => (b.seconds ?? -1) - (a.seconds ?? -1),
};

function matching() {
  const search = view.search.trim().toLowerCase();
  return calls.filter(
    (call) =>
      (!view.host || call.host === view.host) && (!search || haystack(call).includes(search)),
  );
}

function update(changes) {
  Object.assign(view, { page: 0 }, changes);
  const found = matching();
  const tally = { "": found.length };
  for (const call of found) tally[call.outcome] = (tally[call.outcome] ?? 0) + 1;
  for (const button of element("outcomes").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.value === view.outcome));
    button.querySelector("span").textContent = count(tally[button.value] ?? 0);
  }
  view.found = found
    .filter((call) => !view.outcome || call.outcome === view.outcome)
    .sort(ORDERS[view.order]);
  element("found").textContent = summary();
  turn(0);
}

function summary() {
  const found = `${count(view.found.length)} of ${count(calls.length)} calls`;
  return data.total > calls.length ? `${found}, the newest of ${count(data.total)}` : found;
}

function turn(page) {
  const pages = Math.max(1, Math.ceil(view.found.length / PAGE_SIZE));
  view.page = Math.min(Math.max(page, 0), pages - 1);
  const start = view.page * PAGE_SIZE;
  element("cards").replaceChildren(...view.found.slice(start, start + PAGE_SIZE).map(card));
  element("pager").hidden = pages === 1;
  element("page").textContent = `Page ${count(view.page + 1)} of ${count(pages)}`;
  element("previous").disabled = view.page === 0;
  element("next").disabled = view.page === pages - 1;
}

// Details of one call

function pageLink(url) {
  if (!/^https?:\/\//i.test(url)) return document.createTextNode(url);
  const link = make("a", "", url);
  link.href = url;
  link.target = "_blank";
  link.rel = "noopener noreferrer";
  return link;
}

function showDetails(call) {
  const dialog = element("details");
  dialog.querySelector(".picture").replaceChildren(picture(call));
  element("details-title").textContent = answerText(call);
  const verdict = make("span", `verdict ${call.outcome}`, call.outcome);
  const facts = [
    ["Outcome", verdict], ["Page", pageLink(call.url)], ["Host", call.host],
    ["Spider", call.spider], ["Sent", `${written(call.time)} UTC`],
    ["Latency", duration(call.seconds)], ["Code", call.code], ["Trace ID", call.traceId],
  ];
  const list = dialog.querySelector("dl");
  list.replaceChildren();
  for (const [name, value] of facts) {
    if (!value) continue;
    const definition = make("dd");
    definition.append(value);
    list.append(make("dt", "", name), definition);
  }
  dialog.showModal();
}

// Start

function buildFilter() {
  for (const outcome of ["", ...data.outcomes]) {
    const button = make("button", `outcome ${outcome}`, outcome || "All");
    button.type = "button";
    button.value = outcome;
    button.append(" ", make("span"));
    button.addEventListener("click", () => update({ outcome }));
    element("outcomes").append(button);
  }
  for (const host of [...data.hosts].sort()) {
    const option = make("option", "", host);
    option.value = host;
    element("host").append(option);
  }
  for (const name of ["search", "host", "order"]) {
    element(name).addEventListener("input", (event) => update({ [name]: event.target.value }));
  }
  element("filter").addEventListener("submit", (event) => event.preventDefault());
  element("filter").hidden = false;
}

function buildPager() {
  const step = (by) => () => {
    turn(view.page + by);
    element("gallery").scrollIntoView();
  };
  element("previous").addEventListener("click", step(-1));
  element("next").addEventListener("click", step(1));
}

function linkHosts() {
  const known = new Set(data.hosts);
  for (const cell of document.querySelectorAll("#hosts tbody th")) {
    const host = cell.textContent;
    if (!known.has(host)) continue;
    const button = make("button", "", host);
    button.type = "button";
    button.addEventListener("click", () => {
      element("host").value = host;
      update({ host });
      element("gallery").scrollIntoView();
    });
    cell.replaceChildren(button);
  }
}

buildFilter();
buildPager();
linkHosts();
element("cards").addEventListener("click", (event) => {
  const clicked = event.target.closest(".card");
  if (clicked) showDetails(calls[Number(clicked.dataset.index)]);
});
element("details").addEventListener("click", (event) => {
  if (event.target === event.currentTarget) event.currentTarget.close();
});
document.addEventListener("DOMContentLoaded", () => turn(view.page)); // all images are here
update({});
