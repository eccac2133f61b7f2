// Three things that a page can't do by itself: draw charts, move the slider of generations, and follow a live run.
// Text only ever reaches the page as text: it comes escaped from the server or through textContent.
"use strict";

const page = document.documentElement;
const inRun = document.body.dataset.run || "";

// -- charts ------------------------------------------------------------------------------------------------------

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const TITLE = 40; // the room that a figure keeps for its title, which the page has in its own headings
const drawn = new Map();
const CONTROLS = ["generation", "over", "by", "individual"];

function colour(name) {
  return getComputedStyle(page).getPropertyValue(`--${name}`).trim();
}

// The figures are the library's own; only their colours follow the page's theme.
function themed(box, figure) {
  const layout = structuredClone(figure.layout);
  const plain = { color: colour("ink"), family: getComputedStyle(document.body).fontFamily, size: 13 };
  Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true });
  layout.font = { ...layout.font, ...plain };
  layout.hoverlabel = {
    bgcolor: colour("surface"),
    bordercolor: colour("line"),
    font: { color: colour("ink"), family: plain.family, size: 13 },
    align: "left",
  };
  delete layout.title;
  delete layout.width;
  const narrow = box.clientWidth < 480;
  const small = narrow ? 11 : 13;
  box.style.height = box.classList.contains("own") ? `${Math.max(220, (layout.height || 400) - TITLE)}px` : "";
  delete layout.height;
  layout.margin = { ...layout.margin, t: Math.max(16, (layout.margin?.t || 0) - TITLE), r: 16 };
  for (const [key, axis] of Object.entries(layout)) {
    if (/^[xy]axis\d*$/.test(key)) {
      if (axis.title) axis.title.font = { size: small };
      if (narrow && axis.title?.text) axis.title.text = axis.title.text.replace(/ \([^()]*\)$/, "");
      Object.assign(axis, { tickfont: { size: small }, gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line") });
    }
  }
  if (layout.legend) layout.legend.bgcolor = "rgba(0,0,0,0)";
  const data = structuredClone(figure.data);
  // the graphics card's traces compile code at run time, which a strict page doesn't allow
  for (const trace of data) {
    if (trace.type === "scattergl") trace.type = "scatter";
    if (trace.marker?.colorbar?.title) trace.marker.colorbar.title.font = { size: small };
    if (narrow && trace.marker) trace.marker.showscale = false;
  }
  return { data, layout };
}

async function draw(box, force) {
  const query = new URLSearchParams();
  for (const name of CONTROLS) if (box.dataset[name]) query.set(name, box.dataset[name]);
  const turn = (box.turn = (box.turn || 0) + 1);
  let text;
  try {
    const answer = await fetch(`${box.dataset.src}?${query}`);
    text = await answer.text();
    if (!answer.ok) throw new Error(answer.status === 404 ? "" : text);
  } catch (error) {
    return say(box, error.message || "There is nothing to draw yet.");
  }
  if (turn !== box.turn || (!force && drawn.get(box)?.text === text)) return undefined;
  const figure = JSON.parse(text);
  if (figure.empty) return say(box, figure.empty);
  drawn.set(box, { text, figure });
  return paint(box);
}

async function paint(box) {
  const { data, layout } = themed(box, drawn.get(box).figure);
  box.querySelector(".waiting")?.remove();
  await Plotly.react(box, data, layout, { displayModeBar: false, responsive: true, scrollZoom: false });
  if (!box.wired) {
    box.wired = true;
    box.on("plotly_click", (event) => open(event.points[0]));
  }
  box.dataset.state = "drawn";
}

function open(point) {
  const value = Array.isArray(point.customdata) ? point.customdata[0] : point.customdata;
  if (Number.isInteger(value) && inRun) location.href = `${inRun}/individuals/${value}`;
}

function say(box, text) {
  if (drawn.has(box)) return;
  const line = box.querySelector(".waiting") || box.appendChild(document.createElement("p"));
  line.className = "waiting";
  line.textContent = text;
  box.dataset.state = "empty";
}

function drawAll(force) {
  if (typeof Plotly === "undefined") return;
  for (const box of document.querySelectorAll(".chart")) draw(box, force);
}

dark.addEventListener("change", () => drawn.forEach((_, box) => paint(box)));

// -- the slider of generations ------------------------------------------------------------------------------------

const slider = document.querySelector("#generation");

async function slide() {
  const now = slider.value === slider.max;
  const chart = document.querySelector(".chart[data-follows]");
  document.querySelector("#generation-shown").textContent = now ? `${slider.value} (latest)` : slider.value;
  if (chart) {
    chart.dataset.generation = now ? "" : slider.value;
    draw(chart);
  }
  await renew(now ? location.pathname : `${location.pathname}?generation=${slider.value}`, ["front"]);
}

if (slider) {
  let waiting;
  slider.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(slide, 80);
  });
  slider.form.addEventListener("submit", (event) => event.preventDefault());
}

// -- following a run ------------------------------------------------------------------------------------------------

const POLL = 2000;
const IDLE_POLL = 15000;
const LIST_POLL = 4000;
let asked = 0;

// Fetches a page and takes over its parts marked data-part, all of them or those named.
async function renew(address, names) {
  const turn = ++asked;
  const answer = await fetch(address);
  if (!answer.ok || turn !== asked) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const focus = document.activeElement;
  const mark = focus && (focus.id ? `#${CSS.escape(focus.id)}` : focus.getAttribute("href") && `[href="${CSS.escape(focus.getAttribute("href"))}"]`);
  for (const part of document.querySelectorAll("[data-part]")) {
    const name = part.dataset.part;
    const other = fresh.querySelector(`[data-part="${name}"]`);
    if (!other || (names && !names.includes(name)) || part.innerHTML === other.innerHTML) continue;
    const inside = part.contains(focus);
    part.replaceChildren(...other.childNodes);
    if (inside && mark) part.querySelector(mark)?.focus({ preventScroll: true });
  }
  if (!names) Object.assign(document.body.dataset, fresh.body.dataset);
}

async function follow() {
  const started = performance.now();
  let state;
  try {
    const answer = await fetch(`${inRun}/state.json`);
    if (!answer.ok) throw new Error();
    state = await answer.json();
  } catch {
    setTimeout(follow, IDLE_POLL);
    return;
  }
  if (state.revision !== document.body.dataset.revision && !document.hidden) await update(state);
  // a large run takes longer to show: it is asked for less often
  const pause = state.status === "running" ? POLL + 10 * (performance.now() - started) : IDLE_POLL;
  setTimeout(follow, pause);
}

async function update(state) {
  const latest = !slider || slider.value === slider.max;
  await renew(latest ? location.href : `${location.pathname}?generation=${slider.value}`);
  document.body.dataset.revision = state.revision;
  if (slider && Number(slider.max) !== state.generation) {
    slider.max = state.generation;
    slider.disabled = state.generation === 0;
    if (latest) {
      slider.value = slider.max;
      document.querySelector("#generation-shown").textContent = `${slider.value} (latest)`;
    }
  }
  const line = document.querySelector("#announcer");
  if (line) line.textContent = `${state.done} of ${state.total} ${state.unit} done`;
  drawAll(false);
}

for (const field of document.querySelectorAll("select[data-controls]")) {
  field.addEventListener("change", () => {
    for (const box of field.closest("section").querySelectorAll(".chart")) {
      box.dataset[field.dataset.controls] = field.value;
      draw(box);
    }
  });
}

for (const field of document.querySelectorAll("form.filters select")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}

drawAll(false);
if (inRun) setTimeout(follow, POLL);
if (document.body.dataset.list) setInterval(() => document.hidden || renew(location.href).catch(() => {}), LIST_POLL);
