// The charts beside a row's form in the admin: the portal's own panels, on a page that is not the portal's.
import { find } from "./dom.js";
import { Board } from "./panels.js";
import * as range from "./range.js";
import { startMenus } from "./shell.js";

const root = find("[data-charts]");
document.body.dataset.icons = root.dataset.icons;
const { data_url: url, query, explore_url: explore, logs_url: logs } = JSON.parse(find("#charts-state").textContent);
range.start();
const board = new Board(url, query, { explore, logs });
startMenus();
// The admin's own switch between light and dark is a class of the page.
new MutationObserver(() => board.restyle()).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
