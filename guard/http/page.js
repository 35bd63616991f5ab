// Fetches this page again every ten seconds and puts its main part in the place of ours.  Nothing else: the page is
// whole without it.
"use strict";
(() => {
  const EVERY = 10000, PATIENCE = 8000;
  const element = (id) => document.getElementById(id);
  const pause = element("pause");
  let paused = false, busy = false;

  // A screen reader is told when the state changes, not every figure.
  let said = element("page").dataset.said;

  function replace(fresh) {
    const focused = document.activeElement;
    const key = focused && element("page").contains(focused) && focused.closest("[id]");
    const inside = key && key.id;
    const open = [...document.querySelectorAll("details[open]")].map((details) => details.id);
    const scrolled = [...document.querySelectorAll(".scroll")].map((box) => box.scrollTop);
    for (const id of ["page", "foot", "fresh"]) {
      element(id).replaceChildren(...fresh.getElementById(id).childNodes);
    }
    document.title = fresh.title;
    for (const id of open) element(id)?.setAttribute("open", "");
    document.querySelectorAll(".scroll").forEach((box, i) => { box.scrollTop = scrolled[i] ?? 0; });
    if (inside && inside !== "page") {
      const place = element(inside);
      (place?.querySelector("summary") ?? place)?.focus({ preventScroll: true });
    }
    const now = fresh.getElementById("page").dataset.said;
    if (now !== said) element("said").textContent = said = now;
    element("fresh").classList.remove("stale");
  }

  function failed(reason) {
    const fresh = element("fresh");
    if (fresh.classList.contains("stale")) return;
    fresh.classList.add("stale");
    fresh.append(`, not reached since: ${reason}`);
    element("said").textContent = "The guard cannot be reached: the figures are old.";
    said = "";
  }

  async function refresh() {
    if (paused || busy || document.hidden) return;
    if (!getSelection().isCollapsed) return; // somebody copies an address
    busy = true;
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), PATIENCE);
    try {
      // Without a user and password that stand in the address: a fetch refuses those, and the browser knows them.
      const answer = await fetch(`${location.origin}/`, { cache: "no-store", credentials: "same-origin", signal: stop.signal });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (!fresh.getElementById("page")) throw new Error("another page answers");
      if (!paused) replace(fresh);
    } catch (error) {
      failed(error.name === "AbortError" ? "no answer" : error.message);
    } finally {
      clearTimeout(timer);
      busy = false;
    }
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume" : "Pause";
    document.documentElement.classList.toggle("paused", paused);
    element("said").textContent = paused ? "Refresh is paused." : "Refreshes every ten seconds.";
    if (!paused) refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  setInterval(refresh, EVERY);
})();
