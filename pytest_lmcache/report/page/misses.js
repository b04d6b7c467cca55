// The misses of the run, grouped by their cause, with what differs and the command that mends them.

const FEW_TESTS = 6;
const FEW_GROUPS = 50;

function missGroup(group) {
  const places = make("ul.places");
  const add = (from, to) => places.append(...group.calls.slice(from, to).map((id) => {
    const call = calls[byId.get(id)];
    return make("li", {}, call ? make("a", { href: address({ view: "conversations", call: id }) }, breakable(testOf(call).id)) : id);
  }));
  add(0, FEW_TESTS);
  return make("article.miss", { tabindex: "-1" },
    make("h2", {}, make("span.dot", { "aria-hidden": "true" }), make("span.name", {}, group.title)),
    make("p.facts", {}, group.facts),
    differences(group.differences),
    (group.advice || []).map((line) => make("p.hint", {}, line)),
    group.command && make("code.command", {}, group.command),
    places,
    more(group.calls.length, FEW_TESTS, 50, add));
}

function drawMisses() {
  const place = $("#misses");
  if (place.childElementCount) return;
  const groups = data.misses;
  const add = (from, to) => place.append(...groups.slice(from, to).map(missGroup));
  if (!groups.length) place.append(make("p.nothing", {}, "No call missed."));
  add(0, FEW_GROUPS);
  const button = more(groups.length, FEW_GROUPS, FEW_GROUPS, (from, to) => {
    add(from, to);
    place.append(button);
  });
  if (button) place.append(button);
}
