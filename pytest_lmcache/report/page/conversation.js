// One conversation as a person reads it: what was asked, what was answered, and how it differs from the last recording.

const LONG = 20000; // characters of a text that are shown at once
const MANY = 100; // messages that are shown at once
const MOST_BARS = 240;

/** A text with what the search looks for marked; a very long one is cut, with a button for the rest. */
function prose(text, terms, tag = "div.text") {
  const shown = text.length > LONG ? text.slice(0, LONG) : text;
  const element = make(tag, {}, marked(shown, terms));
  if (shown === text) return element;
  const button = make("button.plain.more", { type: "button" }, `Show all ${whole.format(text.length)} characters`);
  button.addEventListener("click", () => {
    element.replaceChildren(...marked(text, terms));
    button.remove();
  });
  return [element, button];
}

function marked(text, terms) {
  if (!terms.length || !text) return [text];
  const pattern = new RegExp(terms.map((term) => term.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&")).join("|"), "gi");
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    if (parts.length > 1000) break;
    parts.push(text.slice(end, found.index), make("mark", {}, found[0]));
    end = found.index + found[0].length;
  }
  parts.push(text.slice(end));
  return parts.filter((part) => part !== "");
}

/** A word diff; `side` leaves out what only the other side has. */
function wordDiff(words, tag = "div.diff", side = "") {
  const names = { added: "ins", removed: "del" };
  const parts = words.filter(([kind]) => !side || kind === "same" || kind === side);
  return make(tag, {}, parts.map(([kind, text]) => (names[kind] ? make(names[kind], {}, text) : text)));
}

const differences = (all) => all.map(({ path, words }) => [make("p.path", {}, path), wordDiff(words)]);

function attachment(file) {
  if (!file.data) return make("span.file", {}, make("b", {}, file.kind), file.name);
  return make("figure.image", {}, make("img", { src: file.data, alt: file.name, loading: "lazy" }), make("figcaption", {}, file.name));
}

function toolCall(call, terms) {
  return make("div.toolcall", {}, call.id && make("span.id", { title: "id of the call" }, call.id), make("b", {}, marked(call.name || "tool", terms)), prose(call.arguments || "", terms, "pre"));
}

function messageRow(message, role, terms, ...after) {
  const thought = message.reasoning && folded(`Reasoning, ${count(message.reasoning.split(/\s+/).filter(Boolean).length, "word")}`, () => prose(message.reasoning, terms));
  if (thought) {
    thought.classList.add("thought");
    thought.open = terms.some((term) => message.reasoning.toLowerCase().includes(term));
  }
  const body = make("div", {},
    thought,
    message.text && prose(message.text, terms),
    (message.calls || []).map((call) => toolCall(call, terms)),
    (message.files || []).map(attachment),
    !message.text && !message.calls && !message.files && !message.reasoning && make("span.soft", {}, "(empty)"),
    after);
  const kind = role === "answer" ? "answer" : { user: "user", system: "system", developer: "system" }[message.role] || "other";
  return make(`article.message.${kind}`, {}, make("div.role", {}, role === "answer" ? "answer" : message.role, message.answers && make("div", {}, message.answers)), body);
}

/** A stream by its chunks, in their order: the time before each, or how much text it had if the recording has no times. */
function rhythm(call) {
  const { pieces, chunks, pace } = call.stream;
  const isTimed = pace.length > 0;
  const bars = isTimed ? pace.map((time) => ["pace", time]) : pieces.map(([kind, text]) => [kind, text.length]);
  const values = bars.map(([, value]) => value);
  const step = Math.ceil(bars.length / MOST_BARS) || 1;
  const label = isTimed ? "milliseconds before each chunk, in their order" : "characters of each chunk, in their order";
  const drawing = svg("svg", { viewBox: `0 0 ${Math.max(40, Math.ceil(bars.length / step))} 30`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  const groups = [];
  for (let at = 0; at < bars.length; at += step) groups.push([bars[at][0], values.slice(at, at + step).reduce((sum, value) => sum + value, 0)]);
  const most = Math.max(1, ...groups.map(([, value]) => value));
  groups.forEach(([kind, value], at) => {
    const height = Math.max(1.5, (29 * value) / most);
    drawing.append(svg("rect", { x: at + 0.12, y: 30 - height, width: 0.76, height, class: kind }));
  });
  const largest = values.length ? Math.max(...values) : 0;
  const range = values.length ? `, ${Math.min(...values)} to ${isTimed ? `${largest} ms before` : count(largest, "character")} each` : "";
  const few = step > 1 ? `; each bar is ${step} of them` : "";
  const texts = pieces.length === chunks ? "all" : pieces.length;
  const untimed = isTimed ? "" : " The recording has no time of each.";
  return make("div.rhythm", {},
    bars.length ? drawing : null,
    make("p", {}, `Streamed in ${count(chunks, "chunk")}, ${texts} with text${range}${few}. The stream took ${seconds(call.seconds)}.${untimed}`),
    pieces.length ? folded("Text by chunk", () => make("div.pieces", {}, pieces.map(([, text]) => make("span", {}, text)))) : null);
}

/** Two answers side by side, what else changed, and what they cost. */
function comparison({ kind, verdict, question, answers, before, after }) {
  const isAgain = kind === "asked again";
  const [old, fresh] = isAgain ? ["Recorded answer", "New answer"] : ["Answer before", "Answer now"];
  const row = (name, one, other) => (one === other ? null : make("tr", {}, make("th", { scope: "row" }, name), make("td.number", {}, one), make("td.number", {}, other)));
  const facts = [
    row("Recorded", day(before.recorded), day(after.recorded)),
    row("Model", before.model, after.model),
    row("Tokens in", whole.format(before.tokens[0]), whole.format(after.tokens[0])),
    row("Tokens out", whole.format(before.tokens[1]), whole.format(after.tokens[1])),
    row("USD", dollars(before.usd), dollars(after.usd)),
    row("Provider", seconds(before.seconds), seconds(after.seconds)),
    row("Finish", before.finish, after.finish),
    row("Error", before.error, after.error),
  ].filter(Boolean);
  const side = (title, words, own) => make("div", {}, make("h4", {}, title), wordDiff(words, "div.text", own));
  const isSame = (words) => words.every(([tag]) => tag === "same");
  const table = () => make("table", {},
    make("thead", {}, make("tr", {}, make("td"), make("th.number", { scope: "col" }, "before"), make("th.number", { scope: "col" }, "now"))),
    make("tbody", {}, facts));
  return make("section.compare", { "aria-label": "Before and after" },
    make("h3", {}, isAgain ? `Asked again: ${verdict}` : "Before and after"),
    differences(question),
    !isAgain && !question.length && make("p", {}, "The question is the same."),
    answers.map((words) => (isSame(words) ? make("p", {}, "The answer is the same.") : make("div.sides", {}, side(old, words, "removed"), side(fresh, words, "added")))),
    facts.length > 0 && folded("Tokens, USD, seconds", table));
}

function talk(call, terms) {
  const section = make("section.talk", { "aria-label": "Conversation" });
  const rows = call.asked.map((index) => messageRow(messages[index], "", terms));
  if (rows.length > MANY) {
    const earlier = rows.splice(0, rows.length - MANY);
    const button = make("button.plain.more", { type: "button" }, `Show ${count(earlier.length, "earlier message")}`);
    button.addEventListener("click", () => button.replaceWith(...earlier));
    rows.unshift(button);
  }
  const last = call.answered.length - 1;
  const answers = call.answered.map((index, at) => messageRow(messages[index], "answer", terms, at === last && call.stream ? rhythm(call) : null));
  section.append(...rows, ...answers);
  if (call.stream && last < 0) section.append(rhythm(call));
  return section;
}

/** The whole reading side for one call. */
function conversation(call, query) {
  const terms = termsOf(query || "");
  const test = testOf(call);
  const parameters = Object.entries(call.parameters);
  const tools = call.tools.map((index) => data.tools[index]);
  const tokens = call.tokens[0] || call.tokens[1] ? `${count(call.tokens[0], "token")} in${call.tokens[1] ? `, ${whole.format(call.tokens[1])} out` : ""}` : "";
  const cached = call.cached[0] ? `${whole.format(call.cached[0])} read from the provider's cache` : "";
  const meta = [
    make(`span.tone.${call.outcome}`, {}, make("span.dot", { "aria-hidden": "true" }), outcomeOf(call)),
    test.outcome && make("span", {}, `test ${test.outcome}`),
    call.model && make("span", {}, call.model),
    make("span", {}, called(call)),
    tokens && make("span", {}, tokens),
    cached && make("span", {}, cached),
    call.usd !== null && make("span", {}, dollars(call.usd)),
    call.seconds > 0 && make("span", { title: "how long the provider took" }, seconds(call.seconds)),
    call.recorded && make("span", {}, `recorded ${day(call.recorded)}`),
    call.finish && make("span", {}, `finish: ${call.finish}`),
    test.cassette && make("span.mono.name", {}, breakable(test.cassette)),
    make("a", { href: address({ view: "conversations", call: call.id }) }, "link"),
  ];
  return make("article.paper", {},
    make("a.back", { href: address({ ...now, call: "" }), onclick: (event) => { event.preventDefault(); leave(); } }, "← All conversations"),
    make("h2", {}, breakable(test.id)),
    make("div.meta", {}, meta),
    call.problem && make("div.problem", {}, call.problem),
    call.comparison && comparison(call.comparison),
    parameters.length > 0 && folded(`${count(parameters.length, "parameter")}: ${parameters.map(([name]) => name).join(", ")}`, () => make("dl.given", {}, parameters.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]))),
    tools.length > 0 && folded(`${count(tools.length, "tool")}: ${tools.map(({ name }) => name).join(", ")}`, () => tools.map(({ text }) => make("pre.code", {}, text))),
    talk(call, terms),
    call.error && make("div.problem", {}, call.error));
}
