// The data of the page: calls, and the messages that they share; and what a search finds in them.

const data = JSON.parse($("#data").textContent);
const { calls, messages, tests } = data;
const byId = new Map(calls.map((call, index) => [call.id.toWellFormed(), index])); // as in an address
const OUTCOMES = {
  replayed: "replayed",
  recorded: "recorded",
  missed: "missed",
  unused: "unused",
  cached: "asked and only cached",
  live: "live and not recorded",
  fault: "given a fault by the test",
  reply: "given a reply by the test",
  value: "value",
  saved: "in a cassette",
};
const outcomeOf = (call) => OUTCOMES[call.outcome] || `from ${call.outcome}`;
const testOf = (call) => tests[call.test];
const fileOf = (call) => testOf(call).id.split("::")[0];
const called = (call) => (call.name.includes(" ") ? call.name : `${call.name}()`); // "remember run id" is no function
const shortName = (test) => test.replace(/^[^[]*\//, ""); // without folders
const tokensOf = (call) => call.tokens[0] + call.tokens[1];

/** The first words that tell a call from others: of the last message of a user, or of the last one at all. */
function preview(call) {
  const asked = call.asked.map((index) => messages[index]);
  const last = asked.findLast((message) => message.role === "user" && message.text) || asked.findLast((message) => message.text);
  return last ? last.text.slice(0, 300).replace(/\s+/g, " ").trim() : called(call);
}

// ---- search

let haystacks = null;
const hits = new Map();

const textsOf = (message) => [
  message.text,
  message.reasoning,
  ...(message.calls || []).flatMap((call) => [call.name, call.arguments]),
  ...(message.files || []).map((file) => file.name),
];

/** The words and "quoted phrases" of a query, in lower case. */
const termsOf = (query) => [...query.toLowerCase().matchAll(/"([^"]+)"?|([^\s"]+)/g)].map((found) => found[1] ?? found[2]);

/** Which messages hold a term, as an array of 0 and 1. */
function messagesWith(term) {
  haystacks ??= messages.map((message) => textsOf(message).filter(Boolean).join("\n").toLowerCase());
  if (hits.size > 50) hits.clear();
  if (!hits.has(term)) hits.set(term, Uint8Array.from(haystacks, (text) => (text.includes(term) ? 1 : 0)));
  return hits.get(term);
}

const headOf = (call) => (call.head ??= `${testOf(call).id} ${call.model} ${call.name} ${outcomeOf(call)} ${call.problem || ""} ${call.error || ""}`.toLowerCase());

const SORTS = {
  test: null,
  tokens: tokensOf,
  usd: (call) => call.usd || 0,
  seconds: (call) => call.seconds,
  newest: (call) => Date.parse(call.recorded) || 0,
};

/** The numbers of the calls that the filters let through, in the order that `sort` says. */
function find({ q = "", outcome, model, file, test, compared, sort }) {
  const terms = termsOf(q).map((term) => [term, messagesWith(term)]);
  const found = [];
  for (let index = 0; index < calls.length; index++) {
    const call = calls[index];
    if (outcome && call.outcome !== outcome) continue;
    if (model && call.model !== model) continue;
    if (file && fileOf(call) !== file) continue;
    if (test && testOf(call).id !== test) continue;
    if (compared && !call.comparison) continue;
    const fits = ([term, has]) => headOf(call).includes(term) || call.asked.some((at) => has[at]) || call.answered.some((at) => has[at]);
    if (terms.every(fits)) found.push(index);
  }
  const by = SORTS[sort];
  return by ? found.sort((one, other) => by(calls[other]) - by(calls[one]) || one - other) : found;
}
