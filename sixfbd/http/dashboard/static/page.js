// Keeps the page live: hears from /api/stream that something changed, fetches the page again and swaps the parts that
// differ; counts the ages on. Without it the page is whole, as of the moment at which it was loaded.
"use strict";

(() => {
  const RETRY_MS = 5000;
  const UNITS = [["years", 31536000], ["d", 86400], ["h", 3600], ["min", 60]];
  const live = document.getElementById("live");
  let source = null;
  let fetching = false;
  let again = false;
  let aheadMs = 0; // how far the daemon's clock is ahead of this machine's

  const clock = () => Date.now() + aheadMs;

  function readClock(page) {
    aheadMs = Date.parse(page.body.dataset.now) - Date.now();
  }

  // The same words as sixfbd/http/dashboard/wording.py has.
  function age(at) {
    const seconds = Math.round(Math.abs(clock() - at) / 1000);
    if (seconds < 1) return "just now";
    const [unit, size] = UNITS.find(([, length]) => seconds >= 2 * length) || ["s", 1];
    const text = `${Math.floor(seconds / size)} ${unit}`;
    return at <= clock() ? `${text} ago` : `in ${text}`;
  }

  function tick() {
    for (const element of document.querySelectorAll("time:not([data-clock])")) {
      const text = age(Date.parse(element.dateTime));
      if (element.textContent !== text) element.textContent = text;
    }
  }

  function say(state, text) {
    live.dataset.state = state;
    live.textContent = text;
  }

  function lost() {
    say("lost", `no answer since ${new Date().toLocaleTimeString()}, trying again`);
  }

  // Two renderings differ when more than the words of their ages does.
  function bare(section) {
    const copy = section.cloneNode(true);
    for (const element of copy.querySelectorAll("time")) element.textContent = "";
    return copy.className + copy.innerHTML;
  }

  function inUse(section) {
    const selection = document.getSelection();
    const selected = selection && !selection.isCollapsed && section.contains(selection.anchorNode);
    return selected || (section !== document.activeElement && section.contains(document.activeElement));
  }

  function swap(page) {
    readClock(page);
    for (const fresh of page.querySelectorAll("[data-live]")) {
      const shown = document.getElementById(fresh.id);
      if (shown && !inUse(shown) && bare(shown) !== bare(fresh)) shown.replaceWith(document.importNode(fresh, true));
    }
    document.title = page.title;
    tick();
  }

  async function refresh() {
    if (fetching) {
      again = true;
      return;
    }
    fetching = true;
    try {
      const answer = await fetch(document.body.dataset.page ?? location.pathname + location.search, { cache: "no-store" });
      if (!answer.ok) throw new Error(`answered ${answer.status}`);
      swap(new DOMParser().parseFromString(await answer.text(), "text/html"));
      if (source && source.readyState === EventSource.OPEN) say("live", "live");
    } catch {
      lost();
    } finally {
      fetching = false;
      if (again) {
        again = false;
        setTimeout(refresh, 1000);
      }
    }
  }

  function listen() {
    if (source) source.close();
    source = new EventSource("/api/stream");
    source.addEventListener("changed", refresh);
    source.addEventListener("error", () => {
      if (live.dataset.state !== "lost") lost();
      if (source && source.readyState === EventSource.CLOSED) setTimeout(() => document.hidden || listen(), RETRY_MS);
    });
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      listen();
    } else if (source) {
      source.close();
      source = null;
      say("still", `paused at ${new Date().toLocaleTimeString()}`);
    }
  });

  readClock(document);
  setInterval(() => document.hidden || tick(), 1000);
  if (!document.hidden) listen();
})();
