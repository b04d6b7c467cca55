// The list of conversations, of which only the rows in sight exist, with its search and filters.

const ROW = 62; // pixels, as in page.css
const SPARE = 6; // rows above and below those in sight
let found = [];
let cursor = 0; // the place in `found` of the selected row
let shownCall = -1;
let rows = new Map();
let asked_for = "";
let parts = null; // the elements of this view, made when it is first shown

function filter(name, title, options) {
  const select = make("select", { "aria-label": title, onchange: () => change({ [name]: select.value, call: "" }) }, make("option", { value: "" }, title), options.map(([value, text]) => make("option", { value }, text)));
  return select;
}

const counted = (key, text = (value) => value) => {
  const numbers = new Map();
  for (const call of calls) numbers.set(key(call), (numbers.get(key(call)) || 0) + 1);
  return [...numbers].filter(([value]) => value).sort().map(([value, number]) => [value, `${text(value)} (${whole.format(number)})`]);
};

function build() {
  const search = make("input", { type: "search", placeholder: "Search prompts, answers, tools, tests", "aria-label": "Search all conversations", autocomplete: "off", spellcheck: "false", oninput: () => change({ q: search.value, call: "" }) });
  const outcomes = counted((call) => call.outcome, (name) => OUTCOMES[name] || `from ${name}`);
  const filters = {
    outcome: filter("outcome", "Outcome", outcomes),
    model: filter("model", "Model", counted((call) => call.model)),
    file: filter("file", "File", counted(fileOf)),
    sort: filter("sort", "Order", [["tokens", "Most tokens"], ["usd", "Most USD"], ["seconds", "Slowest"], ["newest", "Newest"]]),
  };
  const number = make("span", { role: "status" });
  const clear = make("button.plain", { type: "button", onclick: () => { change({ q: "", outcome: "", model: "", file: "", test: "", compared: "", call: "" }); search.focus(); } }, "Show all");
  const sheet = make("div.sheet", { role: "presentation" });
  const list = make("div.list", { role: "listbox", tabindex: "0", "aria-label": "Conversations" }, sheet);
  const nothing = make("p.nothing", { hidden: "" }, "No conversation matches.");
  list.append(nothing);
  const read = make("div.read", { tabindex: "-1", role: "region", "aria-label": "The selected conversation" });
  $("#conversations").append(make("div.pane", {}, make("div.tools", {}, make("div.search", {}, search, make("kbd", { "aria-hidden": "true" }, "/")), make("div.filters", {}, Object.values(filters).filter((select) => select.length > 2)), make("div.found", {}, number, clear)), list), read);
  list.addEventListener("scroll", drawRows, { passive: true });
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".call");
    if (row) select(Number(row.dataset.place), { open: true });
  });
  new ResizeObserver(drawRows).observe(list);
  return { search, filters, number, clear, sheet, list, nothing, read };
}

function row(place) {
  const call = calls[found[place]];
  const element = make(`div.call.${call.outcome}`, { role: "option", id: `row-${place}`, "aria-setsize": found.length, "aria-posinset": place + 1, "data-place": place },
    make("span.dot", { "aria-hidden": "true" }),
    make("div", {}, make("span.grow", {}, preview(call)), make("span.soft", {}, tokensOf(call) ? count(tokensOf(call), "token") : outcomeOf(call))),
    make("div", {}, make("span.grow", { title: testOf(call).id }, shortName(testOf(call).id)), make("span", {}, call.model.replace(/^.*\//, ""))));
  element.style.top = `${place * ROW}px`;
  return element;
}

function drawRows() {
  const { list, sheet } = parts;
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE);
  const end = Math.min(found.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE);
  for (const [place, element] of rows) {
    if (place < first || place >= end) {
      element.remove();
      rows.delete(place);
    }
  }
  for (let place = first; place < end; place++) {
    if (!rows.has(place)) {
      rows.set(place, row(place));
      sheet.append(rows.get(place));
    }
    rows.get(place).setAttribute("aria-selected", String(place === cursor));
  }
  if (rows.has(cursor)) list.setAttribute("aria-activedescendant", `row-${cursor}`);
  else list.removeAttribute("aria-activedescendant");
}

const isNarrow = () => getComputedStyle(parts.read).display === "none" || $("#conversations").classList.contains("reading");

/** Move to a row; on a narrow page `open` shows its conversation in place of the list. */
function select(place, { open = false } = {}) {
  if (!found.length) return;
  cursor = Math.min(Math.max(place, 0), found.length - 1);
  const top = cursor * ROW;
  const { list } = parts;
  if (top < list.scrollTop) list.scrollTop = top;
  else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  drawRows();
  if (open || !isNarrow() || now.call) change({ call: calls[found[cursor]].id });
}

/** From the conversation back to the list. */
function leave() {
  if (isNarrow()) change({ call: "" });
  parts.list.focus({ preventScroll: true });
}

function showConversation() {
  const { read } = parts;
  const isGone = now.call && !byId.has(now.call);
  const index = isGone ? -1 : now.call ? byId.get(now.call) : found[cursor] ?? -1;
  $("#conversations").classList.toggle("reading", Boolean(now.call));
  const wanted = `${index} ${now.q || ""} ${isGone ? now.call : ""}`;
  if (wanted === shownCall) return;
  shownCall = wanted;
  read.replaceChildren(index < 0 ? make("p.nothing", {}, isGone ? `This report has no conversation ${now.call}.` : calls.length ? "" : "No language model was called.") : conversation(calls[index], now.q));
  read.scrollTop = 0;
}

function drawConversations() {
  parts ??= build();
  const { search, filters, number, clear, sheet, list, nothing } = parts;
  if (search.value !== (now.q || "")) search.value = now.q || "";
  for (const [name, select] of Object.entries(filters)) {
    select.value = now[name] || "";
    select.classList.toggle("on", Boolean(now[name]));
  }
  const wanted = JSON.stringify(["q", "outcome", "model", "file", "test", "compared", "sort"].map((name) => now[name] || ""));
  if (wanted !== asked_for) {
    asked_for = wanted;
    found = find(now);
    for (const element of rows.values()) element.remove();
    rows = new Map();
    cursor = 0;
    sheet.style.height = `${found.length * ROW}px`;
    list.scrollTop = 0;
    nothing.hidden = found.length > 0 || !calls.length;
  }
  const is_whole = found.length === calls.length;
  const narrowed = [now.test, now.compared && $("[data-view=compared]")?.firstChild.data.trim().toLowerCase()].filter(Boolean).join(", ");
  number.textContent = `${is_whole ? count(calls.length, "conversation") : `${whole.format(found.length)} of ${count(calls.length, "conversation")}`}${narrowed ? ` · ${narrowed}` : ""}`;
  clear.hidden = is_whole && !now.q;
  const place = now.call ? found.indexOf(byId.get(now.call)) : -1;
  if (place >= 0 && place !== cursor) {
    cursor = place;
    const top = place * ROW;
    if (top < list.scrollTop || top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top - list.clientHeight / 3;
  }
  drawRows();
  showConversation();
}
