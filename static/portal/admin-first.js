// Runs before the first paint: the theme that was chosen stands on <html>, so that nothing flashes; Alpine then takes over.
(() => {
  let chosen = "auto";
  try {
    chosen = JSON.parse(localStorage.getItem("adminTheme")) ?? "auto";
  } catch {
    // Storage can be forbidden; the system's theme is used then.
  }
  const root = document.documentElement;
  if (chosen !== "dark" && !(chosen === "auto" && matchMedia("(prefers-color-scheme: dark)").matches)) return;
  root.classList.add("dark");
  document.addEventListener("alpine:init", () => root.classList.remove("dark"), { once: true });
})();
