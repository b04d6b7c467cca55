// The overview below its figures: where tokens, USD and seconds go, and the slowest calls.

const MEASURES = {
  tokens: { label: "Tokens", of: tokensOf, show: (value) => `${whole.format(value)} tokens` },
  usd: { label: "USD", of: (call) => call.usd || 0, show: dollars },
  seconds: { label: "Seconds", of: (call) => call.seconds, show: seconds },
  calls: { label: "Calls", of: () => 1, show: (value) => count(value, "call") },
};
const FEW = 8;
const asked = calls.filter((call) => !["unused", "missed", "value", "fault", "reply"].includes(call.outcome));
let measure = asked.some((call) => tokensOf(call)) ? "tokens" : "calls";

function sums(key) {
  const found = new Map();
  for (const call of asked) found.set(key(call), (found.get(key(call)) || 0) + MEASURES[measure].of(call));
  return [...found].filter(([, value]) => value > 0).sort((one, other) => other[1] - one[1]);
}

function bars(title, key, parameter, shown = (name) => name) {
  const rows = sums(key);
  const most = rows.length ? rows[0][1] : 1;
  const list = make("ol.bars");
  const add = (from, to) => list.append(...rows.slice(from, to).map(([name, value]) => {
    const bar = make("div.bar");
    bar.style.inlineSize = `${(100 * value) / most}%`;
    const row = make("div.row", {}, make("span.name", { title: name }, breakable(shown(name) || "no model")), make("span.value", {}, MEASURES[measure].show(value)));
    return make("li", {}, make("a", { href: address({ view: "conversations", [parameter]: name }) }, row, make("div.track", { "aria-hidden": "true" }, bar)));
  }));
  add(0, FEW);
  return make("section", {}, make("h3", {}, title), rows.length ? list : make("p.soft", {}, "none known"), more(rows.length, FEW, 50, add));
}

/** A button that adds the next rows of a list, and goes when there are none left. */
function more(length, shown, step, add) {
  if (length <= shown) return null;
  const button = make("button.plain.more", { type: "button" }, `${whole.format(length - shown)} more`);
  button.addEventListener("click", () => {
    add(shown, shown + step);
    shown += step;
    if (shown >= length) button.remove();
    else button.textContent = `${whole.format(length - shown)} more`;
  });
  return button;
}

function slowest() {
  const ranked = asked.filter((call) => call.seconds > 0).sort((one, other) => other.seconds - one.seconds);
  if (!ranked.length) return null;
  const body = make("tbody");
  const add = (from, to) => body.append(...ranked.slice(from, to).map((call) => make("tr", {},
    make("td.number", {}, seconds(call.seconds)),
    make("td.number.wide", {}, whole.format(tokensOf(call))),
    make("td.number.wide", {}, call.usd === null ? "" : dollars(call.usd)),
    make("td", {}, make("a", { href: address({ view: "conversations", call: call.id }), title: testOf(call).id }, breakable(shortName(testOf(call).id))), make("span.first", {}, preview(call).slice(0, 90))))));
  add(0, FEW);
  const head = make("tr", {}, make("th.number", { scope: "col" }, "Provider"), make("th.number.wide", { scope: "col" }, "Tokens"), make("th.number.wide", { scope: "col" }, "USD"), make("th", { scope: "col" }, "Test"));
  return make("section.slowest", {}, make("h3", {}, "Slowest calls"), make("table", {}, make("thead", {}, head), body), more(ranked.length, FEW, 50, add));
}

function drawOverview() {
  const place = $("#charts");
  if (!asked.length || place.childElementCount) return;
  const buttons = Object.entries(MEASURES).map(([name, { label }]) => make("button", {
    type: "button",
    "aria-pressed": String(name === measure),
    onclick: () => {
      measure = name;
      place.replaceChildren();
      drawOverview();
      place.querySelector("[aria-pressed=true]").focus();
    },
  }, label));
  place.append(
    make("div.charts-head", {}, make("h2", {}, "Where it goes"), make("div.switch", { role: "group", "aria-label": "Measure" }, buttons)),
    make("div.charts", {}, make("div", {}, bars("By model", (call) => call.model, "model"), bars("By file", fileOf, "file")), make("div", {}, bars("By test", (call) => testOf(call).id, "test", shortName))),
    slowest(),
  );
}
