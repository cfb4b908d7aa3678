// What widgets that run in the page are built of. In the page it stands before each of them, in one module.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// On each control: JupyterLab would otherwise take arrows, Enter and space for its own shortcuts.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

function button(content, act, attributes = {}) {
  const made = element("button", { type: "button", ...attributes, ...OWN_KEYS }, content);
  made.addEventListener("click", act);
  return made;
}

// A labelled row of buttons of which one is pressed. choose(i) is called when another is. names: for those who hear
// the buttons, where that is more than their contents say.
function choice(title, contents, choose, { pressed = 0, names = null } = {}) {
  const press = (i) => buttons.forEach((one, k) => one.setAttribute("aria-pressed", k === i));
  const buttons = contents.map((content, i) => button(content, () => {
    press(i);
    choose(i);
  }, names ? { "aria-label": names[i] } : {}));
  press(pressed);
  return element("div", { class: "in-the-page-choice", role: "group", "aria-label": title },
    element("span", {}, title), ...buttons);
}

// A label above a slider over whole numbers from 0 to max. say(value) is its words: {label, value}.
function slider(max, say, move, value = 0) {
  const id = `slider-${Math.random().toString(36).slice(2)}`; // per view: a widget may be shown twice
  const handle = element("input", { type: "range", id, min: 0, max, step: 1, value, ...OWN_KEYS });
  const label = element("label", { for: id });
  const tell = () => {
    const words = say(Number(handle.value));
    label.textContent = words.label;
    handle.setAttribute("aria-valuetext", words.value);
  };
  handle.addEventListener("input", () => {
    tell();
    move(Number(handle.value));
  });
  tell();
  return element("div", { class: "in-the-page-slider" }, label, handle);
}
