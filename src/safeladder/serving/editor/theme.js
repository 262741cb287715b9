// Runs before the page is painted, so that a chosen theme does not flash the other one.
try {
  const chosen = localStorage.getItem("safeladder.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage may be forbidden; then the system's colours are used.
}
