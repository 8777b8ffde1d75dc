// Keeps the page fresh: fetches it again, and puts in what has changed. Without this script the page is complete, as of when it was
// loaded.
"use strict";

(() => {
  const EVERY = 5000;
  // A slow server is asked less often: a page may cost it a twentieth of its time at most.
  const SHARE = 20;
  const live = document.getElementById("live");
  const fresh = document.getElementById("fresh");
  const text = document.getElementById("fresh-text");
  const toggle = document.getElementById("fresh-toggle");
  const announce = document.getElementById("announce");
  let paused = false;
  let timer = 0;

  const pad = (n) => String(n).padStart(2, "0");
  const clock = (at) => `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;

  // Countdowns, by this clock: the page says when, and how long it was until then when it was made.
  function anchor() {
    for (const span of document.querySelectorAll("[data-until]")) {
      span.dataset.end = String(Date.now() + 1000 * parseInt(span.textContent, 10));
    }
  }

  function count() {
    for (const span of document.querySelectorAll("[data-end]")) {
      const left = Math.max(0, Math.ceil((Number(span.dataset.end) - Date.now()) / 1000));
      span.textContent = `${left} s`;
    }
  }

  // The same element in the new content: by where its link leads, by its id, or by its label.
  function same(root, element) {
    const href = element.getAttribute("href");
    const label = element.getAttribute("aria-label");
    const found = (selector) => [...root.querySelectorAll(selector)];
    if (href) {
      const index = found("a[href]").filter((a) => a.getAttribute("href") === href);
      const before = [...live.querySelectorAll("a[href]")].filter((a) => a.getAttribute("href") === href);
      return index[before.indexOf(element)] || index[0];
    }
    if (label) {
      return found("[aria-label]").find((other) => other.getAttribute("aria-label") === label);
    }
    return undefined;
  }

  // What is the same is left as it is, so that whoever reads or has marked something there is not disturbed.
  function put(content) {
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && live.contains(selection.anchorNode)) {
      return;
    }
    const active = document.activeElement;
    const target = active && live.contains(active) ? same(content, active) : undefined;
    const scrolled = [...live.querySelectorAll(".scroll")].map((box) => box.scrollLeft);
    live.replaceChildren(...content.childNodes);
    [...live.querySelectorAll(".scroll")].forEach((box, i) => { box.scrollLeft = scrolled[i] || 0; });
    if (target) {
      target.focus({ preventScroll: true });
    }
    anchor();
  }

  async function refresh() {
    const started = Date.now();
    try {
      const answer = await fetch(location.href, { cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(15000) });
      if (!answer.ok) {
        throw new Error(`${answer.status}`);
      }
      const other = new DOMParser().parseFromString(await answer.text(), "text/html");
      const content = other.getElementById("live");
      if (!paused && content) {
        if (content.innerHTML !== last) {
          last = content.innerHTML;
          put(content);
        }
        const [was, is] = [document.querySelector("h1"), other.querySelector("h1")];
        if (was && is && was.textContent !== is.textContent) {
          was.textContent = is.textContent;
          document.title = other.title;
          announce.textContent = is.textContent;
        }
      }
      text.textContent = `As of ${clock(new Date())}`;
    } catch (error) {
      text.textContent = `Not refreshed since ${clock(new Date(shown))}: the controller does not answer`;
      plan(EVERY);
      return;
    }
    shown = Date.now();
    plan(Math.max(EVERY, SHARE * (shown - started)));
  }

  function plan(wait) {
    clearTimeout(timer);
    if (!paused && !document.hidden) {
      timer = setTimeout(refresh, wait);
    }
  }

  let shown = Date.now();
  let last = live ? live.innerHTML : "";
  if (live) {
    fresh.hidden = false;
    toggle.addEventListener("click", () => {
      paused = !paused;
      toggle.setAttribute("aria-pressed", String(paused));
      text.textContent = paused ? `As of ${clock(new Date(shown))}` : "Refreshes itself";
      plan(0);
    });
    document.addEventListener("visibilitychange", () => plan(0));
    anchor();
    setInterval(count, 1000);
    plan(EVERY);
  }
})();
