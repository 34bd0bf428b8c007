// Runs before the first paint: the chosen theme stands on <html>, so that nothing flashes.
(() => {
  try {
    const theme = localStorage.getItem("portal.theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // Storage can be forbidden; the system's theme is used then.
  }
  // Under LANG=C some browsers call their language "en-US@posix", which Intl (and uPlot at load) refuses.
  try {
    new Intl.NumberFormat(navigator.language);
  } catch {
    Object.defineProperty(navigator, "language", { get: () => "en-US", configurable: true });
    Object.defineProperty(navigator, "languages", { get: () => ["en-US"], configurable: true });
  }
})();
