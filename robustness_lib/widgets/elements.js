// What widgets that run in the page are built of. In the page it stands before each of them, in one module.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// On each control: JupyterLab would otherwise take arrows, Enter and space for its own shortcuts.
const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };
