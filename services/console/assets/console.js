// Live pages: the main part is fetched anew every two seconds while somebody looks at it. And light or dark.
"use strict";
(() => {
  const root = document.documentElement;
  const themes = ["", "dark", "light"];
  const apply = (theme) => { if (theme) root.dataset.theme = theme; else delete root.dataset.theme; };
  apply(localStorage.getItem("theme"));
  document.getElementById("theme")?.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "") + 1) % themes.length];
    if (next) localStorage.setItem("theme", next); else localStorage.removeItem("theme");
    apply(next);
  });

  const main = document.querySelector("main[data-live]");
  const pulse = document.getElementById("pulse");
  if (!main) return;
  const url = new URL(location.href);
  url.searchParams.set("part", "1");
  const busy = () => document.hidden || main.contains(document.activeElement)
    || main.querySelector("details[open]") || String(getSelection()).length > 0;
  setInterval(async () => {
    if (busy()) return;
    try {
      const answer = await fetch(url, { credentials: "same-origin", redirect: "error" });
      if (!answer.ok) throw new Error(answer.status);
      const html = await answer.text();
      if (busy()) return;
      const scrolls = [...main.querySelectorAll("[data-scroll]")].map((e) => e.scrollLeft);
      main.innerHTML = html;
      main.querySelectorAll("[data-scroll]").forEach((e, at) => { e.scrollLeft = scrolls[at] || 0; });
      pulse?.classList.remove("lost");
    } catch {
      pulse?.classList.add("lost");
    }
  }, 2000);
})();
