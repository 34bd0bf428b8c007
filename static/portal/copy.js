// Buttons that copy the text of the element they name.
import { all } from "./dom.js";

for (const button of all("[data-copy]")) {
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy);
    const word = button.firstChild;
    const before = word.data;
    try {
      await navigator.clipboard.writeText(source.textContent);
      word.data = "Copied";
    } catch {
      // Without HTTPS there is no clipboard: select it, so that the keyboard can.
      getSelection().selectAllChildren(source);
      word.data = "Selected";
    }
    setTimeout(() => { word.data = before; }, 1500);
  });
}
