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

  // People are ids in the records; whoever looks reads their own name instead.
  let me = null;
  const introduce = (root) => {
    if (!me) return;
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (node.data.includes(me.user)) {
        node.parentElement.title ||= me.user;
        node.data = node.data.replaceAll(me.user, me.name);
      }
    }
  };
  fetch("/auth/me", { credentials: "same-origin", redirect: "error" })
    .then((answer) => (answer.ok ? answer.json() : null))
    .then((found) => {
      if (!found?.user || !found.name) return;
      me = found;
      introduce(document.body);
    })
    .catch(() => { /* The ids stay. */ });

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
      introduce(main);
      main.querySelectorAll("[data-scroll]").forEach((e, at) => { e.scrollLeft = scrolls[at] || 0; });
      pulse?.classList.remove("lost");
    } catch {
      pulse?.classList.add("lost");
    }
  }, 2000);
})();
