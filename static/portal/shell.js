// Theme, shortcuts and the clock of relative times: what every page has.
import { all, find, icon } from "./dom.js";
import { writeTimes } from "./format.js";
import { pick } from "./range.js";

const THEMES = { auto: ["auto", "Theme: automatic"], light: ["sun", "Theme: light"], dark: ["moon", "Theme: dark"] };

const theme = () => document.documentElement.dataset.theme || "auto";

function showTheme() {
  const [sign, text] = THEMES[theme()];
  for (const button of all("[data-theme-toggle]")) {
    find(".icon", button).replaceWith(icon(sign));
    find("span", button).textContent = text;
    if (button.title) button.title = text;
  }
}

export function startTheme(restyle) {
  const next = () => {
    const names = Object.keys(THEMES);
    const wanted = names[(names.indexOf(theme()) + 1) % names.length];
    if (wanted === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = wanted;
    try {
      if (wanted === "auto") localStorage.removeItem("portal.theme");
      else localStorage.setItem("portal.theme", wanted);
    } catch {
      // Forbidden storage: the choice lasts as long as the page.
    }
    showTheme();
    restyle();
  };
  for (const button of all("[data-theme-toggle]")) button.addEventListener("click", next);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  showTheme();
  return next;
}

// On a low window the navigation scrolls: it stands where the page is.
export function showPlace() {
  for (const place of all(".nav > .nav-groups [aria-current], .tabs [aria-current]")) place.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function step(direction) {
  const rows = all("[data-alerts] a.alert-row");
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement);
  rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + direction))].focus();
}

export function startShortcuts({ nextTheme, reload }) {
  const dialog = find("[data-keys]");
  const pages = { o: "overview", p: "performance", s: "system", a: "alerts", c: "oncall", e: "explore" };
  let goes = 0;
  for (const button of all("[data-open-keys]")) button.addEventListener("click", () => dialog.showModal());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, select, textarea, dialog")) return;
    if (Date.now() - goes < 1200 && pages[event.key]) {
      const link = all(".nav-link[href]").find((a) => a.querySelector("use").getAttribute("href").endsWith(`#${pages[event.key]}`));
      link?.click();
      return;
    }
    goes = 0;
    if (event.key === "g") goes = Date.now();
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "t") nextTheme();
    else if (event.key === "r") reload();
    else if (event.key === "?") dialog?.showModal();
    else if (event.key >= "1" && event.key <= "5") pick(Number(event.key) - 1);
  });
}

/** A menu closes when the attention goes elsewhere; Escape gives the focus back to what opened it. */
export function startMenus() {
  const close = (menu) => { menu.open = false; };
  document.addEventListener("click", (event) => all("details.menu[open]").filter((menu) => !menu.contains(event.target)).forEach(close));
  document.addEventListener("focusin", (event) => all("details.menu[open]").filter((menu) => !menu.contains(event.target)).forEach(close));
  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && event.target.closest?.("details.menu[open]");
    if (menu) { close(menu); find("summary", menu).focus(); }
  });
}

export function startClock() {
  writeTimes();
  setInterval(() => { if (!document.hidden) writeTimes(); }, 1000);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const place = find("[data-clock]");
  if (place && zone) place.textContent = `Times are shown in ${zone}.`;
}

/** Dialogs by buttons that name them, forms that ask first, forms that carry the address's query on. */
export function startDialogs() {
  for (const button of all("[data-opens]")) button.addEventListener("click", () => document.getElementById(button.dataset.opens).showModal());
  for (const button of all("[data-closes]")) button.addEventListener("click", () => button.closest("dialog").close());
  for (const form of all("form[data-asks]")) form.addEventListener("submit", (event) => { if (!confirm(form.dataset.asks)) event.preventDefault(); });
  for (const form of all("form[data-keeps-query]")) form.addEventListener("submit", () => { form.action = form.action.split("?")[0] + location.search; });
}
