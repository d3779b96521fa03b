// Keys, and the help that lists them.

const KEYS = {
  Moving: [
    ["↑ ↓", "the row before, the next", ["ArrowUp", "ArrowDown"], (event) => step(event.key === "ArrowUp" ? -1 : 1)],
    ["Page Up/Down", "twenty rows", ["PageUp", "PageDown"], (event) => step(event.key === "PageUp" ? -20 : 20)],
    ["Home End", "the first row, the last", ["Home", "End"], (event) => step(event.key === "Home" ? -size : 2 * size)],
    ["e E", "the next error, the one before", ["e", "E"], (event) => next_of(is_bad, event.key === "e" ? 1 : -1)],
    ["Enter", "into the details", ["Enter"], () => $("side").focus()],
    ["c", "fold the connection", ["c"], () => chosen !== null && fold(chosen < 0 ? -1 - chosen : content.connection[chosen])],
    ["Esc", "close the details, empty the search", ["Escape"], () => (chosen !== null ? choose(null, true) : clear_search())],
  ],
  Time: [
    ["+ −", "zoom in, out", ["+", "=", "-"], (event) => zoom(event.key === "-" ? 1.6 : 0.625, middle())],
    ["← →", "earlier, later", ["ArrowLeft", "ArrowRight"], (event) => pan(event.key === "ArrowLeft" ? -0.2 : 0.2)],
    ["z", "zoom to the row", ["z"], () => chosen !== null && look_at_row(chosen)],
    ["0", "the whole recording", ["0"], look_at_all],
  ],
  Search: [
    ["/", "search", ["/"], () => $("search").select()],
    ["n N", "the next match, the one before", ["n", "N"], (event) => next_match(event.key === "n" ? 1 : -1)],
    ["m", "matches only", ["m"], () => $("only").click()],
  ],
  Page: [
    ["t", "light or dark", ["t"], () => toggle_theme()],
    ["?", "this help", ["?"], () => $("help").showModal()],
  ],
};

const SEARCHES = [
  ["room:lobby new_msg", "rows with all of these, in topic, event, ids, payloads …"],
  ['"two words"', "with both, as they are"],
  ["topic:room event:msg", "in this column; also what: status: ref:"],
  ["took>10ms took<2s", "spans that took so long"],
  ["is:error", "what went wrong"],
];

const MOUSE = [
  ["wheel on the overview or the axis", "zoom"], ["Ctrl + wheel on bars", "zoom"], ["Shift + wheel", "earlier, later"],
  ["drag bars or the axis", "earlier, later"], ["drag on the overview", "look at this range"], ["double click there", "the whole recording"],
];

// Where zooming by a key is around: the chosen row, if it is in the range.
function middle() {
  const [from, to] = chosen === null ? [NaN, NaN] : extent(chosen);
  const at = (from + to) / 2;
  return at >= range.from && at <= range.to ? at : (range.from + range.to) / 2;
}

function listen_to_keys() {
  const actions = new Map(Object.values(KEYS).flat().flatMap(([, , keys, action]) => keys.map((key) => [key, action])));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    if (event.target === $("search")) {
      search_key(event);
      return;
    }
    const action = actions.get(event.key);
    if (!action || keeps(event.target, event.key)) return;
    event.preventDefault();
    action(event);
  });
}

// What has keys of its own keeps them: a menu all, a button its Enter, the details their scrolling.
function keeps(element, key) {
  if (element.matches("select")) return true;
  if (element.matches("button, summary, input")) return key === "Enter";
  return $("side").contains(element) && /^(Arrow|Page|Home|End)/.test(key);
}

function search_key(event) {
  if (event.key === "Enter") next_match(event.shiftKey ? -1 : 1);
  else if (event.key === "Escape") clear_search();
  else if (event.key === "ArrowDown") $("scroller").focus();
  else return;
  event.preventDefault();
}

function fill_help() {
  const group = (name, rows, tag) => el("section", {}, heading(name), el("dl", {}, ...rows.flatMap(([key, what]) => [el("dt", {}, el(tag, {}, key)), el("dd", {}, what)])));
  const columns = [...Object.entries(KEYS).map(([name, rows]) => group(name, rows, "kbd")), group("Mouse", MOUSE, "span"), group("What can be searched for", SEARCHES, "code")];
  $("help-text").append(el("div", { class: "columns" }, ...columns));
}
