// Shows the view that the address names, and hears the keys.

const views = { overview: drawOverview, misses: drawMisses, conversations: drawConversations };

function render() {
  for (const view of VIEWS) $(`#${view}`).hidden = view !== now.view;
  const current = now.view === "conversations" && now.compared ? "compared" : now.view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  views[now.view]();
}

// ---- light and dark

const dark = matchMedia("(prefers-color-scheme: dark)");
const themeButton = $("#theme-button");
const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
const nameTheme = () => { themeButton.textContent = isDark() ? "Light" : "Dark"; };

/** The browser may refuse to keep anything for a file, or in a frame. */
function kept(action) {
  try {
    return action(localStorage);
  } catch {
    return null;
  }
}

function switchTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  kept((storage) => storage.setItem("pytest-lmcache-theme", document.documentElement.dataset.theme));
  nameTheme();
}

// ---- keys

const keysDialog = $("#keys");

function step(by) {
  if (now.view === "conversations") select(cursor + by);
  if (now.view !== "misses") return;
  const groups = [...document.querySelectorAll(".miss")];
  const at = groups.indexOf(document.activeElement?.closest(".miss"));
  const next = groups[at < 0 ? 0 : Math.min(Math.max(at + by, 0), groups.length - 1)];
  next?.focus();
}

const toSearch = () => {
  if (now.view !== "conversations") change({ view: "conversations", call: "" });
  else if (isNarrow() && now.call) change({ call: "" });
  parts.search.focus();
  parts.search.select();
};

function enter() {
  const inList = now.view === "conversations" && (document.activeElement === parts.list || document.activeElement === parts.search);
  if (!inList || !found.length) return false;
  select(cursor, { open: true });
  parts.read.focus();
  return true;
}

function escape() {
  if (now.view !== "conversations") return false;
  if (document.activeElement === parts.search && parts.search.value) change({ q: "", call: "" });
  else leave();
  return true;
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  "/": toSearch,
  t: switchTheme,
  "?": () => keysDialog.showModal(),
};
const LIST_KEYS = {
  ArrowDown: () => select(cursor + 1),
  ArrowUp: () => select(cursor - 1),
  Home: () => select(0),
  End: () => select(found.length - 1),
  PageDown: () => select(cursor + Math.floor(parts.list.clientHeight / ROW)),
  PageUp: () => select(cursor - Math.floor(parts.list.clientHeight / ROW)),
};

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || keysDialog.open) return;
  const isTyping = event.target.matches?.("input, select, textarea");
  const isInList = parts && (event.target === parts.list || (event.target === parts.search && /^Arrow|^Page/.test(event.key)));
  let action = null;
  if (event.key === "Enter") action = enter;
  else if (event.key === "Escape") action = escape;
  else if (isInList && LIST_KEYS[event.key]) action = LIST_KEYS[event.key];
  else if (!isTyping && KEYS[event.key]) action = KEYS[event.key];
  else if (!isTyping && /^[1-4]$/.test(event.key)) action = () => document.querySelectorAll("nav a")[event.key - 1]?.click();
  if (action && action() !== false) event.preventDefault();
});

$("#keys-button").addEventListener("click", () => keysDialog.showModal());
themeButton.addEventListener("click", switchTheme);
dark.addEventListener("change", nameTheme);
const theme = kept((storage) => storage.getItem("pytest-lmcache-theme"));
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
nameTheme();
now = parse(location.hash);
render();
