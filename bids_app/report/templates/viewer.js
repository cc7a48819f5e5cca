// The viewer: planes of a volume on canvases, moved by wheel, keys, touch and sliders. Used by every page.
"use strict";

const ZOOMS = [1, 1.5, 2, 3, 4, 6];
const WHEEL = 40; // px of wheel for a slice

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

class ScanViewer {
  // `options.greedy`: the wheel and touch always move slices, not only once the viewer was clicked;
  // `options.label`: its name for screen readers; `options.keep`: window and side stay from scan to scan.
  constructor(root, options) {
    this.root = root;
    this.options = Object.assign({ label: "Scan", greedy: false, keep: false }, options);
    this.volume = null;
    this.window = null;
    this.mirrored = false;
    this.zoom = 0;
    this.centre = [0.5, 0.5];
    this.tool = "";
    this.pointers = new Map();
    this.wheeled = 0;
    root.classList.add("viewer");
    root.classList.toggle("greedy", this.options.greedy);
    new ResizeObserver(() => this.draw()).observe(root);
  }

  // Show a decoded volume; its middle first.
  open(volume) {
    const again = this.options.keep && this.volume;
    this.volume = volume;
    this.at = volume.start ? volume.start.slice() : volume.shape.map((size) => Math.floor(size / 2));
    if (!again) {
      this.window = volume.layers[0].window.slice();
      this.mirrored = false;
    }
    this.zoom = 0;
    this.centre = [0.5, 0.5];
    this.shown = volume.layers.map((layer, i) => i === 0 || Boolean(layer.on));
    this.fade = volume.layers.map((layer) => (layer.fade === undefined ? 1 : layer.fade));
    this.tables = [];
    this._build();
    this.draw();
  }

  // Show nothing; the next volume is shown as if it were the first.
  close() {
    this.volume = null;
    this.root.replaceChildren();
    for (const name of ["at", "window", "zoom", "left"]) delete this.root.dataset[name];
  }

  // -- what is on the page ---------------------------------------------------------------------

  _build() {
    const planes = this.volume.planes.map((plane) => this._panel(plane));
    this.panels = Object.fromEntries(planes.map((panel) => [panel.plane, panel]));
    this.output = element("p", { class: "told", "aria-live": "off" });
    this.root.replaceChildren(
      element("div", { class: planes.length > 1 ? "planes three" : "planes" }, ...planes.map((panel) => panel.box)),
      this._tools(), ...this._overlays(), this.output);
  }

  _panel(plane) {
    const canvas = element("canvas", {
      tabindex: "0", role: "application", "aria-label": `${this.options.label}, ${plane} slices. Arrow up and down move.`,
    });
    const count = this.volume.shape[ACROSS[plane][2]];
    const slider = element("input", {
      type: "range", min: "1", max: String(count), "aria-label": `${plane} slice`,
      oninput: () => this.go(plane, Number(slider.value) - 1),
    });
    const number = element("span", { class: "number" });
    canvas.addEventListener("wheel", (event) => this._wheel(event, plane), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this._down(event, plane));
    canvas.addEventListener("pointermove", (event) => this._move(event, plane));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    if (!this.options.greedy) canvas.addEventListener("keydown", (event) => this.key(event, plane));
    const box = element("div", { class: `plane ${plane}` }, canvas, element("div", { class: "row" }, slider, number));
    return { plane, canvas, slider, number, box, count };
  }

  _tools() {
    const button = (text, label, act) => element("button", {
      type: "button", "aria-label": label, title: label, onclick: () => act(),
    }, text);
    const drag = element("select", { "aria-label": "What dragging does", onchange: () => (this.tool = drag.value) },
      ...[["", "Drag: automatic"], ["slices", "Drag: slices"], ["window", "Drag: window"], ["move", "Drag: move"]]
        .map(([value, text]) => element("option", { value, selected: value === this.tool }, text)));
    this.side = button("L | R", "Show the left of the patient on the other side (F)", () => this.mirror());
    this.level = element("span", { class: "level" });
    return element("div", { class: "tools", role: "group", "aria-label": "Window and zoom" },
      button("◐ +", "More contrast (+)", () => this.contrast(0.85)),
      button("◐ −", "Less contrast (-)", () => this.contrast(1 / 0.85)),
      button("☀ +", "Brighter (.)", () => this.brighten(-0.06)),
      button("☀ −", "Darker (,)", () => this.brighten(0.06)),
      button("Reset", "Reset window and zoom (0)", () => this.reset()),
      button("⊕", "Zoom in (Z)", () => this.magnify(1)),
      button("⊖", "Zoom out (Shift Z)", () => this.magnify(-1)),
      this.side, drag, this.level);
  }

  _overlays() {
    const rows = this.volume.layers.slice(1).map((layer, i) => {
      const box = element("input", { type: "checkbox", checked: this.shown[i + 1], onchange: () => {
        this.shown[i + 1] = box.checked;
        this.draw();
      } });
      const fade = element("input", {
        type: "range", min: "0", max: "100", value: String(100 * this.fade[i + 1]), "aria-label": `How opaque: ${layer.name}`,
        oninput: () => {
          this.fade[i + 1] = Number(fade.value) / 100;
          this.draw();
        },
      });
      return element("div", { class: "overlay" }, element("label", {}, box, this._key(layer), layer.name), fade);
    });
    const legend = element("legend", {}, "On the picture");
    return rows.length ? [element("fieldset", { class: "overlays" }, legend, ...rows)] : [];
  }

  _key(layer) {
    const key = element("canvas", { class: "key", width: "36", height: "12", "aria-hidden": "true" });
    const context = key.getContext("2d");
    const colours = layer.kind === "labels" ? layer.colours.filter(Boolean) : layer.colours;
    for (let x = 0; x < 36; x++) {
      const share = layer.kind === "ramp" ? between(colours, x / 35) : rgb(colours[Math.floor((x / 36) * colours.length)]);
      context.fillStyle = `rgb(${share.join(",")})`;
      context.fillRect(x, 0, 1, 12);
    }
    return key;
  }

  // -- what it can do --------------------------------------------------------------------------

  go(plane, index) {
    const panel = this.panels[plane];
    this.at[ACROSS[plane][2]] = Math.min(Math.max(index, 0), panel.count - 1);
    this.draw();
  }

  step(plane, by) {
    this.go(plane, this.at[ACROSS[plane][2]] + by);
  }

  contrast(factor) {
    const [low, high] = this.window;
    const middle = (low + high) / 2;
    const half = Math.min(Math.max(((high - low) / 2) * factor, 0.02 * this._range()), 1.5 * this._range());
    this._set([middle - half, middle + half]);
  }

  brighten(share) {
    const by = share * this._range();
    this._set(this.window.map((end) => end + by));
  }

  _range() {
    const [low, high] = this.volume.layers[0].window;
    return high - low;
  }

  _set(window) {
    this.window = window;
    this.tables[0] = null;
    this.draw();
  }

  reset() {
    this.zoom = 0;
    this.centre = [0.5, 0.5];
    this._set(this.volume.layers[0].window.slice());
  }

  magnify(by) {
    this.zoom = Math.min(Math.max(this.zoom + by, 0), ZOOMS.length - 1);
    this._pan(0, 0);
  }

  mirror() {
    this.mirrored = !this.mirrored;
    this.draw();
  }

  _pan(right, down) {
    const half = 0.5 / ZOOMS[this.zoom];
    this.centre = [this.centre[0] - right, this.centre[1] - down].map((c) => Math.min(Math.max(c, half), 1 - half));
    this.draw();
  }

  // A key; returns whether it was one of the viewer's.
  key(event, plane) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.volume) return false;
    const at = plane || this.volume.planes[0];
    const acts = {
      ArrowUp: () => this.step(at, 1), ArrowDown: () => this.step(at, -1),
      PageUp: () => this.step(at, 5), PageDown: () => this.step(at, -5),
      Home: () => this.go(at, 0), End: () => this.go(at, this.panels[at].count - 1),
      "+": () => this.contrast(0.85), "=": () => this.contrast(0.85), "-": () => this.contrast(1 / 0.85),
      ".": () => this.brighten(-0.06), ",": () => this.brighten(0.06), 0: () => this.reset(),
      z: () => this.magnify(1), Z: () => this.magnify(-1), f: () => this.mirror(), F: () => this.mirror(),
    };
    if (!acts[event.key]) return false;
    acts[event.key]();
    event.preventDefault();
    return true;
  }

  // -- wheel, mouse and touch ------------------------------------------------------------------

  _wheel(event, plane) {
    if (!this.options.greedy && document.activeElement !== this.panels[plane].canvas) return;
    event.preventDefault();
    if (event.ctrlKey) return this.magnify(event.deltaY < 0 ? 1 : -1);
    this.wheeled += event.deltaY * [1, 16, 400][event.deltaMode];
    const steps = Math.trunc(this.wheeled / WHEEL);
    this.wheeled -= steps * WHEEL;
    // a notch of a wheel is one slice, however many px it is worth
    if (steps) this.step(plane, -Math.sign(steps) * (Math.abs(event.deltaY) >= 100 ? 1 : Math.abs(steps)));
  }

  _down(event, plane) {
    const canvas = this.panels[plane].canvas;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, rest: 0 });
    this._point(event, plane);
  }

  // Where several planes are shown, a click moves the cross-hair there.
  _point(event, plane) {
    if (this.volume.planes.length < 2 || this.tool || this.pointers.size > 1) return false;
    const panel = this.panels[plane];
    const place = panel.canvas.getBoundingClientRect();
    let share = (event.clientX - place.left - panel.left) / panel.width;
    if (this.mirrored && plane !== "sagittal") share = 1 - share;
    const down = (event.clientY - place.top - panel.top) / panel.height;
    const [right, up] = ACROSS[plane];
    const [across, high] = [this.volume.shape[right], this.volume.shape[up]];
    this.at[right] = Math.min(Math.max(Math.floor(share * across), 0), across - 1);
    this.at[up] = Math.min(Math.max(high - 1 - Math.floor(down * high), 0), high - 1);
    this.draw();
    return true;
  }

  _move(event, plane) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const [right, down] = [event.clientX - before.x, event.clientY - before.y];
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
    [before.x, before.y] = [event.clientX, event.clientY];
    if (others.length) return this._pinch(before, others[0], right, down);
    if (this._point(event, plane)) return;
    const panel = this.panels[plane];
    const tool = this.tool || (event.pointerType === "touch" ? (this.zoom ? "move" : "slices") : "window");
    if (tool === "slices") {
      before.rest -= down;
      const steps = Math.trunc(before.rest / 12);
      before.rest -= steps * 12;
      if (steps) this.step(plane, steps);
    } else if (tool === "move") {
      this._pan(right / panel.width, down / panel.height);
    } else {
      const unit = this._range() / 300;
      const [low, high] = this.window;
      const width = Math.max(high - low + right * unit, 0.04 * this._range());
      const middle = (low + high) / 2 + down * unit;
      this._set([middle - width / 2, middle + width / 2]);
    }
  }

  _pinch(finger, other, right, down) {
    const now = Math.hypot(finger.x - other.x, finger.y - other.y);
    const was = Math.hypot(finger.x - right - other.x, finger.y - down - other.y);
    other.rest += now - was;
    if (Math.abs(other.rest) > 40) {
      this.magnify(Math.sign(other.rest));
      other.rest = 0;
    }
  }
}
