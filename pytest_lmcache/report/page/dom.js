// Makes elements. Text goes in as text nodes only: nothing of a prompt or an answer is ever parsed as HTML.

const $ = (selector) => document.querySelector(selector);

/** An element: `make("a.name", {href: "#/"}, "text", child, …)`; null and false children are left out. */
function make(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return element;
}

/** A name in which a line may break where a reader expects it, not amid a word. */
const breakable = (name) => name.split(/(?<=[/_[.-]|::)/).flatMap((piece, at) => (at ? [make("wbr"), piece] : [piece]));

const svg = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

/** A `details` element whose content is made when it is first opened. */
function folded(title, content) {
  const element = make("details", {}, make("summary", {}, title));
  element.addEventListener("toggle", () => element.open && element.childElementCount === 1 && element.append(...[content()].flat()), { once: false });
  return element;
}

// ---- numbers

const whole = new Intl.NumberFormat("en");
const count = (number, noun) => `${whole.format(number)} ${noun}${number === 1 ? "" : "s"}`;
const seconds = (value) => (value >= 100 ? `${whole.format(Math.round(value))} s` : `${value.toFixed(value < 10 ? 2 : 1)} s`);

/** USD to the cent, or to the first two digits of less than ten cents, as in pytest's summary. */
function dollars(value) {
  if (value === null || value === undefined) return "price not known";
  if (value === 0) return "$0";
  if (value >= 0.1) return `$${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}`;
  return `$${value.toLocaleString("en", { maximumSignificantDigits: 2, maximumFractionDigits: 20 })}`;
}

const day = (when) => (when || "").replace("T", " ").replace(/:\d\d(\.\d+)?Z$/, " UTC");
