// Small things that everything else uses: elements, and numbers as people read them.

const $ = (id) => document.getElementById(id);

// Returns an element. Text is only ever set as text, so that no payload is taken for markup.
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") element.style.cssText = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child || child === 0));
  return element;
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

// A duration of nanoseconds in three digits: "12.3 µs", "1.24 ms", "2.31 s".
function duration(nanoseconds) {
  for (const [unit, size] of [["µs", 1e3], ["ms", 1e6]]) {
    const text = digits(nanoseconds / size);
    if (Number(text) < 1000) return `${text} ${unit}`;
  }
  return `${digits(nanoseconds / 1e9)} s`;
}

const digits = (number) => number.toFixed(number < 9.995 ? 2 : number < 99.95 ? 1 : 0);
const seconds = (nanoseconds, places = 4) => (nanoseconds / 1e9).toFixed(places);

// A point in time, given in nanoseconds since the start of the page, as a date in UTC with microseconds.
function moment(nanoseconds) {
  const at = BigInt(content.start) + BigInt(Math.round(nanoseconds));
  const micros = String((at / 1000n) % 1000000n).padStart(6, "0");
  return `${new Date(Number(at / 1000000n)).toISOString().slice(0, 19).replace("T", " ")}.${micros} UTC`;
}

// Runs a function once before the next frame, however often it is asked for.
function once_a_frame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; work(); });
  };
}

// The colour of a variable of the style, as a canvas needs it; light-dark() is resolved where it is used only.
function colour(name) {
  const probe = $("about");
  const before = probe.style.color;
  probe.style.color = `var(--${name})`;
  const resolved = getComputedStyle(probe).color;
  probe.style.color = before;
  return resolved;
}
