// What the page still lacks for people who do not use a mouse or do not see: names for the sliders' handles and for the
// arrows of the contents, and a way to reach, by keyboard, what scrolls inside its box. It also lets the widgets'
// formulas use the page's MathJax.
(() => {
  // noUiSlider marks its handle as a slider but gives it neither a name nor its value in words.
  function nameSlider(handle) {
    const box = handle.closest(".widget-hslider");
    if (!box) return;
    const set = (name, text) => text && handle.getAttribute(name) !== text && handle.setAttribute(name, text);
    set("aria-label", box.querySelector(".widget-label")?.textContent.trim() || "slider");
    set("aria-valuetext", box.querySelector(".widget-readout")?.textContent.trim());
  }

  function makeReachable(box) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    if (scrolls && !box.hasAttribute("tabindex")) box.setAttribute("tabindex", "0");
  }

  function improve() {
    document.querySelectorAll(".widget-hslider .noUi-handle").forEach(nameSlider);
    document.querySelectorAll(
      "div.math, mjx-container, .pst-scrollable-table-container, pre, .cell_output .output",
    ).forEach(makeReachable);
  }

  // The widget manager sets formulas by the interface of MathJax 2; the page carries MathJax 3.
  function answerOldMathJax() {
    const MathJax = window.MathJax;
    if (MathJax && !MathJax.Hub) {
      MathJax.Hub = { Queue: ([, , element]) => MathJax.startup.promise.then(() => MathJax.typesetPromise([element])) };
    }
  }

  // Widgets and formulas arrive after the page; many changes at once are answered once.
  let waiting = false;
  const soon = () => {
    if (waiting) return;
    waiting = true;
    setTimeout(() => {
      waiting = false;
      improve();
    }, 200);
  };
  window.addEventListener("load", soon);
  window.addEventListener("resize", soon);
  document.addEventListener("DOMContentLoaded", () => {
    answerOldMathJax();
    // A list must hold list items; Sphinx marks the bibliography's entries otherwise, and they say what they are.
    document.querySelectorAll('.citation-list[role="list"]').forEach((list) => list.removeAttribute("role"));
    // An arrow that opens the pages below another says to nobody but the eye what it does.
    document.querySelectorAll(".bd-sidebar-primary details > summary").forEach((arrow) => {
      const page = arrow.closest("li").querySelector("a").textContent.trim();
      arrow.setAttribute("aria-label", `Pages below “${page}”`);
    });
    new MutationObserver(soon).observe(document.body, { childList: true, subtree: true, characterData: true });
    soon();
  });
})();
