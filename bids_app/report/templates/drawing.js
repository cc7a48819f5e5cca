// How the viewer draws: planes at native resolution, scaled onto canvases with letters, edges and cross-hair.
"use strict";

const SCRATCH = document.createElement("canvas");

function painted(table, plane) {
  const image = new ImageData(plane.width, plane.height);
  const colours = new Uint32Array(table.buffer);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = colours[plane.levels[i]];
  SCRATCH.width = plane.width;
  SCRATCH.height = plane.height;
  SCRATCH.getContext("2d").putImageData(image, 0, 0);
  return SCRATCH;
}

// The border of what is not 0, along the pixels' sides, as a path in pixels.
function borderOf(plane) {
  const path = new Path2D();
  const { width, height, levels } = plane;
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && levels[y * width + x] > 0;
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      const here = inside(x, y);
      if (here !== inside(x - 1, y)) {
        path.moveTo(x, y);
        path.lineTo(x, y + 1);
      }
      if (here !== inside(x, y - 1)) {
        path.moveTo(x, y);
        path.lineTo(x + 1, y);
      }
    }
  }
  return path;
}

Object.assign(ScanViewer.prototype, {
  draw() {
    if (!this.volume || this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (!this.volume) return; // closed meanwhile
      for (const panel of Object.values(this.panels)) this._paint(panel);
      this._tell();
    });
  },

  // Place of the whole plane on the canvas, CSS px; the canvas is as large as the page lets it be.
  _fit(panel) {
    const { shape, spacing } = this.volume;
    const [right, up] = ACROSS[panel.plane];
    const [across, high] = [shape[right] * spacing[right], shape[up] * spacing[up]];
    const width = panel.box.clientWidth;
    const tallest = Math.max(220, Math.round(window.innerHeight * (this.volume.planes.length > 1 ? 0.5 : 0.78)));
    const height = Math.min(Math.round((width * high) / across), tallest);
    const scale = Math.min(width / across, height / high) * ZOOMS[this.zoom];
    panel.width = across * scale;
    panel.height = high * scale;
    panel.left = width / 2 - this.centre[0] * panel.width;
    panel.top = height / 2 - this.centre[1] * panel.height;
    const ratio = window.devicePixelRatio || 1;
    const [px, py] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (panel.canvas.width !== px || panel.canvas.height !== py) {
      panel.canvas.width = px;
      panel.canvas.height = py;
      panel.canvas.style.height = `${height}px`;
    }
    return { ratio, width, height };
  },

  _paint(panel) {
    const { ratio, width, height } = this._fit(panel);
    if (!width) return;
    const index = this.at[ACROSS[panel.plane][2]];
    const context = panel.canvas.getContext("2d");
    const flipped = this.mirrored && panel.plane !== "sagittal";
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.globalAlpha = 1;
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    context.save();
    if (flipped) context.transform(-1, 0, 0, 1, width, 0);
    const left = flipped ? width - panel.left - panel.width : panel.left;
    this.volume.layers.forEach((layer, i) => {
      if (!this.shown[i]) return;
      const plane = planeOf(layer, panel.plane, index);
      context.globalAlpha = this.fade[i];
      if (layer.kind === "edge") return this._edge(context, layer, plane, left, panel);
      this.tables[i] = this.tables[i] || tableOf(layer, i ? layer.window || [0, 1] : this.window);
      context.imageSmoothingEnabled = i === 0;
      context.imageSmoothingQuality = "high";
      context.drawImage(painted(this.tables[i], plane), left, panel.top, panel.width, panel.height);
    });
    context.restore();
    this._write(context, panel, width, height, flipped);
    panel.slider.value = String(index + 1);
    panel.slider.setAttribute("aria-valuetext", `slice ${index + 1} of ${panel.count}`);
    panel.number.textContent = `${index + 1}/${panel.count}`;
  },

  _edge(context, layer, plane, left, panel) {
    const [x, y] = [panel.width / plane.width, panel.height / plane.height];
    const path = new Path2D();
    path.addPath(borderOf(plane), new DOMMatrix([x, 0, 0, y, left, panel.top]));
    context.strokeStyle = layer.colours[0];
    context.lineWidth = 1.6;
    context.stroke(path);
  },

  _write(context, panel, width, height, flipped) {
    const write = (text, x, y, align) => {
      context.textAlign = align;
      context.lineWidth = 3;
      context.strokeStyle = "#000";
      context.fillStyle = "#fff";
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    };
    context.globalAlpha = 1;
    context.lineJoin = "round";
    context.textBaseline = "top";
    context.font = "bold 16px system-ui, sans-serif";
    const ends = flipped ? [...ENDS[panel.plane]].reverse() : [...ENDS[panel.plane]];
    write(ends[0], 8, 8, "left");
    write(ends[1], width - 8, 8, "right");
    if (this.volume.planes.length > 1) this._hair(context, panel, width, height, flipped);
  },

  _hair(context, panel, width, height, flipped) {
    const [right, up] = ACROSS[panel.plane];
    let share = (this.at[right] + 0.5) / this.volume.shape[right];
    if (flipped) share = 1 - share;
    const x = panel.left + share * panel.width;
    const y = panel.top + (1 - (this.at[up] + 0.5) / this.volume.shape[up]) * panel.height;
    context.globalAlpha = 0.8;
    context.strokeStyle = "#39ff14";
    context.lineWidth = 1;
    context.beginPath();
    for (const [a, b, c, d] of [[0, y, x - 8, y], [x + 8, y, width, y], [x, 0, x, y - 8], [x, y + 8, x, height]]) {
      context.moveTo(a, b);
      context.lineTo(c, d);
    }
    context.stroke();
  },

  // Position and values in words, and the state for whoever reads the page by machine.
  _tell() {
    const { volume } = this;
    const words = [];
    const world = worldOf(volume, this.at);
    if (volume.planes.length > 1) {
      if (world) words.push(world.map((mm, i) => `${"xyz"[i]} ${mm >= 0 ? "+" : "−"}${Math.abs(mm).toFixed(0)}`).join(", ") + " mm");
      for (const layer of volume.layers) words.push(`${layer.name}: ${told(layer, this.at) || "none"}`);
    }
    this.output.textContent = words.join(" · ");
    const [low, high] = this.window;
    this.level.textContent = `window ${low.toFixed(2)} to ${high.toFixed(2)}`;
    Object.assign(this.root.dataset, {
      at: this.at.join(" "), window: `${low.toFixed(3)} ${high.toFixed(3)}`, zoom: String(ZOOMS[this.zoom]),
      left: this.mirrored ? "right" : "left",
    });
    this.side.setAttribute("aria-pressed", String(this.mirrored));
  },
});
