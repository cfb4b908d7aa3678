// A prediction before the answer: what a page marks as an answer stays away until the reader has written a guess, or has
// asked to look without one. Without JavaScript, and on paper, everything is shown.
(() => {
  const PREDICTION = /^Predict/;
  const ANSWER = ".cell.tag_answer, .answer";

  function make(tag, attributes, text = "") {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  }

  // Each prediction with the answers that follow it, up to the next one.
  function predictions() {
    const found = [];
    document.querySelectorAll(`.admonition, ${ANSWER}`).forEach((part) => {
      if (part.matches(ANSWER)) found.at(-1)?.answers.push(part);
      else if (PREDICTION.test(part.querySelector(".admonition-title")?.textContent.trim())) {
        found.push({ question: part, answers: [] });
      }
    });
    return found.filter(({ answers }) => answers.length > 0);
  }

  function lock({ question, answers }, number) {
    const id = `guess-${number}`;
    const form = make("form", { class: "guess", autocomplete: "off" });
    const label = make("label", { for: id }, "Your guess");
    const guess = make("input", { id, type: "text", maxlength: "120" });
    const look = make("button", { type: "submit" }, "Look");
    const skip = make("button", { type: "button", class: "guess-skip" }, "Look without a guess");
    const open = (words) => {
      answers.forEach((answer) => answer.classList.remove("not-yet"));
      form.replaceWith(make("p", { class: "guess-made", role: "status" }, words));
      window.dispatchEvent(new Event("resize")); // what was drawn out of sight takes its size
    };
    form.append(label, guess, look, skip);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const words = guess.value.trim();
      if (words) open(`Your guess: “${words}”. Now look.`);
      else guess.focus();
    });
    skip.addEventListener("click", () => open("Now look."));
    question.append(form);
    answers.forEach((answer) => answer.classList.add("not-yet"));
  }

  document.addEventListener("DOMContentLoaded", () => predictions().forEach(lock));
})();
