// Viewers in a report: made when their part of the page is opened, so that the page itself stays quick.
"use strict";

for (const part of document.querySelectorAll("details[data-view]")) {
  part.addEventListener("toggle", async () => {
    if (!part.open || part.dataset.made) return;
    part.dataset.made = "yes";
    const root = part.querySelector("[data-label]");
    try {
      const spec = JSON.parse(document.getElementById(part.dataset.view).textContent);
      new ScanViewer(root, { label: root.dataset.label }).open(await decoded(spec));
    } catch (error) {
      root.textContent = `This cannot be shown. ${error.message}`;
    }
  });
}
