// What the page shows is in the address behind the `#`, so that a link shows the same again.

const VIEWS = ["overview", "misses", "conversations"];
let now = { view: "overview" };
let pending = 0;

function parse(hash) {
  const at = hash.indexOf("?");
  const view = (at < 0 ? hash : hash.slice(0, at)).replace(/^#?\/?/, "");
  const given = Object.fromEntries(new URLSearchParams(at < 0 ? "" : hash.slice(at + 1)));
  return { ...given, view: VIEWS.includes(view) ? view : "overview" };
}

function address({ view, ...given }) {
  const readable = (text) => encodeURIComponent(text.toWellFormed()).replace(/%2F/g, "/").replace(/%3A/g, ":");
  const pairs = Object.entries(given).filter(([, value]) => value);
  const query = pairs.map(([name, value]) => `${name}=${readable(value)}`).join("&");
  return `#/${view === "overview" ? "" : view}${query ? `?${query}` : ""}`;
}

/** Show something else at once; the address follows when no key is held down any more. */
function change(changes) {
  now = { ...now, ...changes };
  render();
  clearTimeout(pending);
  pending = setTimeout(writeAddress, 150);
}

function writeAddress() {
  clearTimeout(pending);
  if (parse(location.hash) && address(now) !== address(parse(location.hash))) location.replace(address(now));
}

addEventListener("hashchange", () => {
  const given = parse(location.hash);
  if (address(given) === address(now)) return;
  clearTimeout(pending);
  now = given;
  render();
});
