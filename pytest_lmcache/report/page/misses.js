// The misses of the run, grouped by their cause, with what differs and the commands that mend them.

const FEW_TESTS = 6;
const FEW_GROUPS = 50;

/** Links to the calls of tests that missed; a test without one is only named. */
function missedIn(group) {
  const places = make("ul.places");
  const add = (from, to) => places.append(...group.tests.slice(from, to).map((test) => {
    const call = calls.find((each) => each.outcome === "missed" && testOf(each).id === test);
    return make("li", {}, call ? make("a", { href: address({ view: "conversations", call: call.id }) }, breakable(test)) : breakable(test));
  }));
  add(0, FEW_TESTS);
  return [places, more(group.tests.length, FEW_TESTS, 50, add)];
}

function missGroup(group) {
  return make("article.miss", { tabindex: "-1" },
    make("h2", {}, make("span.dot", { "aria-hidden": "true" }), make("span.name", {}, group.title)),
    group.facts.map((line) => make("p.facts", {}, line)),
    differences(group.differences),
    group.also.map((line) => make("p.facts", {}, `also: ${line}`)),
    missedIn(group));
}

function drawMisses() {
  const place = $("#misses");
  if (place.childElementCount) return;
  const groups = data.misses;
  if (!groups.length) place.append(make("p.nothing", {}, "No call missed."));
  if (data.mends.length) place.append(make("section.mends", {}, make("h2", {}, "What mends them"), make("pre.command", {}, data.mends.join("\n"))));
  const add = (from, to) => place.append(...groups.slice(from, to).map(missGroup));
  add(0, FEW_GROUPS);
  const button = more(groups.length, FEW_GROUPS, FEW_GROUPS, (from, to) => {
    add(from, to);
    place.append(button);
  });
  if (button) place.append(button);
}
