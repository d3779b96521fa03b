// The whole recording at a glance: lives of connections, how much happened when, what went wrong, what was found.

const STACK = [IN, OUT, CLIENT, HERE];
const LANES = 4;

function draw_overview() {
  const canvas = $("overview").querySelector("canvas");
  const width = canvas.clientWidth, height = canvas.clientHeight, scale = devicePixelRatio || 1;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const x = (at) => ((at - whole.from) / (whole.to - whole.from)) * width;
  draw_lives(pen, x);
  draw_density(pen, x, width, height);
  draw_marks(pen, x, height);
  const errors = content.mood.filter((mood) => mood === BAD).length;
  const said = [count(content.connections.length, "connection"), count(size, "row"), count(errors, "error"), seconds(content.end, 3) + " s"];
  canvas.setAttribute("aria-label", `Overview: ${said.join(", ")}`);
}

// Each connection is a line; those at the same time are in different lanes, as far as there is room.
function draw_lives(pen, x) {
  const until = new Array(LANES).fill(-Infinity);
  content.connections.forEach((its, number) => {
    if (!its.connection_id) return;
    const lane = Math.max(0, until.findIndex((end) => end <= its.start));
    until[lane] = lasts_to(number);
    pen.fillStyle = colour(!its.reason || its.reason === "closed_by_client" ? "faint" : "bad");
    pen.fillRect(x(its.start), 4 + lane * 4, Math.max(2, x(lasts_to(number)) - x(its.start) - 1), 2);
  });
}

// How many rows of each kind begin in each column of pixels; roots, so that a few are seen beside many.
function draw_density(pen, x, width, height) {
  const columns = STACK.map(() => new Uint32Array(width + 1));
  const all = new Uint32Array(width + 1);
  for (let row = 0; row < size; row++) {
    const place = STACK.indexOf(kind[row]);
    if (place < 0 || !is_shown(row)) continue;
    const column = clamp(Math.floor(x(begin[row])), 0, width);
    columns[place][column] += 1;
    all[column] += 1;
  }
  const top = 22, bottom = height - 7, most = Math.sqrt(all.reduce((a, b) => Math.max(a, b), 1));
  const level = new Float64Array(width + 1).fill(bottom);
  STACK.forEach((number, place) => {
    pen.fillStyle = colour(KINDS[number]);
    for (let column = 0; column <= width; column++) {
      const its = columns[place][column];
      if (!its) continue;
      const length = Math.max(1, ((bottom - top) * Math.sqrt(all[column]) * its) / all[column] / most);
      level[column] -= length;
      pen.fillRect(column, level[column], 1, length);
    }
  });
}

function draw_marks(pen, x, height) {
  const bad = colour("bad"), found = colour("once");
  for (let row = 0; row < size; row++) {
    if (matching?.[row] && is_shown(row)) {
      pen.fillStyle = found;
      pen.fillRect(x(begin[row]) - 1, 19, 2, 4);
    }
    if (!is_bad(row)) continue;
    pen.fillStyle = bad;
    pen.fillRect(x(begin[row]) - 1, height - 6, 2, 6);
    if (!is_gap(row)) continue;
    pen.globalAlpha = 0.18;
    pen.fillRect(x(begin[row]), 0, Math.max(2, x(ends[row]) - x(begin[row])), height);
    pen.globalAlpha = 1;
  }
}

function draw_window() {
  const share = (at) => (100 * (at - whole.from)) / (whole.to - whole.from);
  $("window").classList.toggle("all", is_all());
  const style = $("window").style;
  style.left = `${share(range.from)}%`;
  style.width = `${Math.max(share(range.to) - share(range.from), 0.15)}%`;
  $("range").textContent = `${duration(range.to - range.from)}, ${in_range.toLocaleString("en")} of ${count(size, "row")}`;
}

// Dragging: the window moves it, its edges change it, anywhere else makes a new one.
function listen_to_overview() {
  const overview = $("overview");
  const at = (event) => {
    const box = overview.getBoundingClientRect();
    return whole.from + ((event.clientX - box.left) / box.width) * (whole.to - whole.from);
  };
  overview.addEventListener("pointerdown", (event) => {
    const start = at(event), { from, to } = range, handles = [...$("window").children];
    overview.setPointerCapture(event.pointerId);
    const drag = event.target === handles[0] ? (now) => look_at(Math.min(now, to), to)
      : event.target === handles[1] ? (now) => look_at(from, Math.max(now, from))
      : event.target === $("window") && !is_all() ? (now) => look_at(from + now - start, to + now - start)
      : (now) => look_at(Math.min(start, now), Math.max(start, now));
    let moved = false;
    const move = (next) => {
      moved ||= Math.abs(next.clientX - event.clientX) > 3;
      if (moved) drag(at(next));
    };
    const end = () => {
      overview.removeEventListener("pointermove", move);
      if (!moved && event.target.tagName === "CANVAS") look_at(start - (to - from) / 2, start + (to - from) / 2);
    };
    overview.addEventListener("pointermove", move);
    overview.addEventListener("pointerup", end, { once: true });
    overview.addEventListener("pointercancel", end, { once: true });
  });
  overview.addEventListener("wheel", (event) => wheel(event, at(event)), { passive: false });
  overview.addEventListener("dblclick", look_at_all);
}

function wheel(event, at) {
  event.preventDefault();
  const across = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
  if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(across / 1000);
  else zoom(Math.exp(clamp(event.deltaY, -240, 240) / 400), at);
}
