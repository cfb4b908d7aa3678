// Tells RequireJS where the widget modules lie: beside this file, in the book itself, never on another host.
// The folder is read from this script's own address, so it is right at any page depth and under file://.
(() => {
  const folder = document.currentScript.src.replace(/[^/]*$/, "");
  window.requirejs.config({
    waitSeconds: 60, // slow phones: the widget manager is 3.6 MB
    paths: {
      "@jupyter-widgets/html-manager/dist": folder.replace(/\/$/, ""),
      "@jupyter-widgets": folder.replace(/\/$/, ""),
      anywidget: folder + "anywidget",
    },
  });
})();
