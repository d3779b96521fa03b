// Puts it together: what happens when something changes, and where the page begins.

const redraw_all = once_a_frame(() => { make_list(); draw_overview(); draw_window(); if (chosen === null) show_side(); });
const redraw_range = once_a_frame(() => { make_list(); draw_window(); if (chosen === null) show_first_match(); });
const redraw_rows = once_a_frame(draw_rows);
let summing = 0;

// The summary follows when the range rests, as it looks at every row.
function range_changed() {
  redraw_range();
  clearTimeout(summing);
  summing = setTimeout(() => { if (chosen === null) show_side(); }, 120);
}

const search_now = () => {
  search($("search").value);
  make_list();
  $("found").textContent = matching ? (matches.length ? `${matches.length.toLocaleString("en")} found` : "nothing found") : "";
  $("found").dataset.query = $("search").value;
  show_first_match();
  for (const id of ["previous", "next"]) $(id).disabled = !matches.length;
  draw_overview();
  draw_window();
  if (chosen === null) show_side();
};

// Scrolls to the first match that is listed, unless one is seen.
function show_first_match() {
  const scroller = $("scroller"), found = (row) => row >= 0 && matching[row];
  if (!matching || !matches.length) return;
  const first = Math.floor(scroller.scrollTop / ROW), last = Math.floor((scroller.scrollTop + scroller.clientHeight) / ROW);
  if (listed.slice(first, last).some(found)) return;
  const place = listed.findIndex(found);
  if (place >= 0) scroller.scrollTop = Math.max(0, place - 3) * ROW;
}

function next_match(by) {
  if (matching && matches.length) next_of((row) => matching[row], by);
}

// Chooses the next row, among all that could be shown, that passes a test; goes round at the end.
function next_of(test, by) {
  const rows = content.connections.flatMap((_, number) => by_connection[number].filter((row) => is_shown(row) && test(row)));
  if (!rows.length) return;
  const order = new Map(rows.map((row, place) => [row, place]));
  let place = order.get(chosen);
  if (place === undefined) {
    const at = chosen === null ? range.from : extent(chosen)[0];
    const later = rows.findIndex((row) => begin[row] >= at);
    place = by > 0 ? (later < 0 ? -1 : later - 1) : later < 0 ? 0 : later;
  }
  const next = rows[(place + by + rows.length) % rows.length];
  choose(next);
  if (matching) $("found").textContent = matching[next] ? `${order.get(next) + 1} of ${matches.length.toLocaleString("en")}` : `${matches.length.toLocaleString("en")} found`;
}

function clear_search() {
  $("search").value = "";
  search_now();
  $("scroller").focus();
}

function toggle_theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  set_theme(dark ? "light" : "dark");
  remember(root.dataset.theme);
}

function set_theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  draw_overview();
}

// Pages opened from a file may have no storage; the theme is then the system's each time.
function remember(theme) {
  try { localStorage.setItem("slipstream-theme", theme); } catch { /* it is not remembered */ }
}

function remembered() {
  try { return localStorage.getItem("slipstream-theme"); } catch { return null; }
}

function fill_kinds() {
  const box = (label, checked, name, change) => el("label", { style: `--colour:var(--${name})` },
    el("input", { type: "checkbox", checked, onchange: (event) => { change(event.target.checked); search_now(); } }), label);
  $("kinds").append(...KIND_NAMES.map((label, number) => box(label, true, KINDS[number], (on) => { shown.kinds[number] = on; })),
    box("errors only", false, "bad", (on) => { shown.errors = on; }));
}

function listen_to_list() {
  const scroller = $("scroller");
  scroller.addEventListener("scroll", redraw_rows);
  scroller.addEventListener("click", (event) => {
    const element = event.target.closest(".row");
    if (!element || dragged) return;
    const row = Number(element.dataset.row);
    if (row < 0 && event.target.classList.contains("arrow")) fold(-1 - row);
    else choose(row);
  });
  scroller.addEventListener("dblclick", (event) => { if (event.target.closest(".row")) look_at_row(Number(event.target.closest(".row").dataset.row)); });
  for (const element of [scroller, $("axis")]) {
    element.addEventListener("pointerdown", drag_time);
    element.addEventListener("wheel", (event) => {
      if (element === scroller && !event.ctrlKey && !event.shiftKey && Math.abs(event.deltaX) <= Math.abs(event.deltaY)) return;
      const box = $("axis").getBoundingClientRect();
      wheel(event, range.from + clamp((event.clientX - box.left) / box.width, 0, 1) * (range.to - range.from));
    }, { passive: false });
  }
}

let dragged = false;                // whether the pointer was moved since it went down, so that its click is none

function drag_time(event) {
  dragged = false;
  if (!event.target.closest(".track, #axis") || event.button !== 0) return;
  const { from, to } = range, width = $("axis").clientWidth;
  const move = (next) => {
    const by = next.clientX - event.clientX;
    dragged ||= Math.abs(by) > 3;
    if (dragged) look_at(from - (by / width) * (to - from), to - (by / width) * (to - from));
  };
  document.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => document.removeEventListener("pointermove", move), { once: true });
}

// Paper is light, and has no scrolling: as many rows as can be printed are put there.
function listen_to_print() {
  const root = document.documentElement;
  addEventListener("beforeprint", () => {
    root.dataset.screen = root.dataset.theme ?? "";
    set_theme("light");
    put_rows(0, Math.min(listed.length, PAGE));
    const left = listed.length - PAGE;
    if (left > 0) $("rows").append(el("p", { class: "faint" }, `${count(left, "row")} more: zoom in to print them`));
  });
  addEventListener("afterprint", () => {
    set_theme(root.dataset.screen || null);
    draw_rows();
  });
}

function fill_header() {
  const bad = content.mood.filter((mood) => mood === BAD).length;
  const connections = content.connections.filter((its) => its.connection_id).length;
  $("about").textContent = [count(connections, "connection"), count(size, "row"), count(bad, "error"), `${seconds(content.end, 3)} s`, `from ${moment(0)}`].join(" · ");
  $("about").title = content.sources?.join("\n") ?? "";
  $("findings").replaceChildren(...(content.findings ?? []).map(finding_element));
  $("notices").replaceChildren(...(content.notices ?? []).map((notice) => el("p", {}, notice)));
}

// A cause of what went wrong: what happened, when, and, if it is opened, what shows it and what to do.
function finding_element(finding) {
  const { cause, gravity, blame, mechanism, count: times, rows, evidence, advice } = finding;
  const first = rows.length > 0 && el("button", { type: "button", onclick: () => choose(rows[0]) }, `${seconds(begin[rows[0]], 1)} s`);
  const name = el("b", { class: gravity === "slight" ? "" : "bad" }, cause.replaceAll("_", " "));
  return el("details", {},
    el("summary", {}, name, el("span", { class: "faint" }, `${gravity}, ${blame}${times > 1 ? `, ${count(times, "time")}` : ""}`), first, el("span", { title: mechanism }, mechanism)),
    el("p", {}, `To do: ${advice}.`), el("p", {}, evidence.join("\n")), links(rows));
}

async function begin_page() {
  take(await unpack($("content").textContent));
  $("content").textContent = "";
  const theme = remembered();
  if (theme) document.documentElement.dataset.theme = theme;
  set_whole();
  fill_header();
  fill_kinds();
  fill_help();
  listen_to_keys();
  listen_to_list();
  listen_to_overview();
  listen_to_print();
  $("search").addEventListener("input", once_a_frame(search_now));
  $("only").addEventListener("change", (event) => { shown.only = event.target.checked; search_now(); });
  const buttons = {
    previous: () => next_match(-1), next: () => next_match(1), in: () => zoom(0.625, middle()), out: () => zoom(1.6, middle()),
    fit: look_at_all, theme: toggle_theme, "help-button": () => $("help").showModal(),
  };
  for (const [id, action] of Object.entries(buttons)) $(id).addEventListener("click", action);
  $("nothing").querySelector("button").addEventListener("click", look_at_all);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw_overview);
  addEventListener("resize", redraw_all);
  search_now();
  document.documentElement.dataset.ready = performance.now().toFixed(0);
}

begin_page().catch((error) => {
  document.querySelector("main").replaceChildren(el("p", { class: "failed" }, `This page could not be shown: ${error.message}. It needs a browser of 2024 or newer.`));
  throw error;
});
