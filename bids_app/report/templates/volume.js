// Volumes in the page: 8-bit slices out of PNG tiles, planes through them, and colours for their levels.
// Levels lie in memory as shown: x to the right, rows from the top (anterior) down, slices from below up.
"use strict";

const ACROSS = { axial: [0, 1, 2], coronal: [0, 2, 1], sagittal: [1, 2, 0] }; // right, up, through
const ENDS = { axial: "LR", coronal: "LR", sagittal: "PA" }; // letters on the left and right of the picture

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// The levels of one layer, (nx * ny * nz,); refused where the browser did not give back what was stored.
async function levelsOf(layer, shape) {
  const [nx, ny, nz] = shape;
  const blob = new Blob([bytesOf(layer.png)], { type: "image/png" });
  const sheet = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const levels = new Uint8Array(nx * ny * nz);
  const canvas = document.createElement("canvas");
  canvas.width = sheet.width;
  canvas.height = ny;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let sum = 0;
  for (let first = 0; first < nz; first += layer.columns) {
    context.drawImage(sheet, 0, (first / layer.columns) * ny, sheet.width, ny, 0, 0, sheet.width, ny);
    const row = context.getImageData(0, 0, sheet.width, ny).data;
    for (let k = first; k < Math.min(first + layer.columns, nz); k++) {
      for (let y = 0; y < ny; y++) {
        let from = (y * sheet.width + (k - first) * nx) * 4;
        let to = (k * ny + y) * nx;
        for (let x = 0; x < nx; x++, from += 4) sum += levels[to++] = row[from];
      }
    }
  }
  sheet.close();
  if (sum !== layer.sum) {
    throw new Error("This browser changes the pictures it reads. Switch off its protection against fingerprinting " +
      "for this page, or use another browser.");
  }
  return levels;
}

// A volume ready to be shown: what the page holds (spec) with every layer's levels.
async function decoded(spec) {
  const layers = [];
  for (const layer of spec.layers) {
    const factor = layer.factor || 1; // voxels of the picture along a side of the layer's
    const shape = spec.shape.map((size) => size / factor);
    layers.push(Object.assign({}, layer, { factor, shape, levels: await levelsOf(layer, shape), png: undefined }));
  }
  return { shape: spec.shape, spacing: spec.spacing, planes: spec.planes, affine: spec.affine, start: spec.start, layers };
}

function levelAt(layer, at) {
  const [nx, ny] = layer.shape;
  const [x, y, z] = at.map((index) => Math.floor(index / layer.factor));
  return layer.levels[(z * ny + (ny - 1 - y)) * nx + x];
}

// The levels of a plane, rows from the top down, and its size.
function planeOf(layer, plane, place) {
  const [nx, ny, nz] = layer.shape;
  const index = Math.floor(place / layer.factor);
  if (plane === "axial") {
    return { width: nx, height: ny, levels: layer.levels.subarray(index * nx * ny, (index + 1) * nx * ny) };
  }
  const width = plane === "coronal" ? nx : ny;
  const levels = new Uint8Array(width * nz);
  for (let row = 0; row < nz; row++) {
    const slice = (nz - 1 - row) * nx * ny;
    for (let column = 0; column < width; column++) {
      levels[row * width + column] = plane === "coronal"
        ? layer.levels[slice + (ny - 1 - index) * nx + column]
        : layer.levels[slice + (ny - 1 - column) * nx + index];
    }
  }
  return { width, height: nz, levels };
}

function rgb(colour) {
  const number = parseInt(colour.slice(1), 16);
  return [(number >> 16) & 255, (number >> 8) & 255, number & 255];
}

function between(colours, share) {
  const place = Math.min(Math.max(share, 0), 1) * (colours.length - 1);
  const low = Math.min(Math.floor(place), colours.length - 2);
  const [a, b] = [rgb(colours[low]), rgb(colours[low + 1])];
  return a.map((value, i) => Math.round(value + (b[i] - value) * (place - low)));
}

// 256 colours (RGBA) for the levels of a layer; level 0 of an overlay is nothing.
function tableOf(layer, window) {
  const table = new Uint8ClampedArray(1024);
  for (let level = 0; level < 256; level++) {
    const value = layer.low + level * layer.step;
    const share = (value - window[0]) / (window[1] - window[0]);
    let colour = [0, 0, 0, 0];
    if (layer.kind === "gray") {
      const shade = Math.round(255 * Math.min(Math.max(share, 0), 1));
      colour = [shade, shade, shade, 255];
    } else if (level > 0 && layer.kind === "labels" && layer.colours[level]) {
      colour = [...rgb(layer.colours[level]), 255];
    } else if (level > 0 && layer.kind === "ramp" && !(Math.abs(value) < layer.hide)) {
      colour = [...between(layer.colours, share), 255];
    }
    table.set(colour, level * 4);
  }
  return table;
}

// What a layer says at a place, in words.
function told(layer, at) {
  const level = levelAt(layer, at);
  if (layer.kind === "labels") return layer.names[level] || "";
  if (layer.kind === "edge") return level ? "yes" : "no";
  if (layer.kind === "ramp" && level === 0) return "none";
  const value = layer.low + level * layer.step;
  const digits = Math.max(0, Math.ceil(-Math.log10(layer.step) - 1e-9));
  return (layer.signed && value > 0 ? "+" : "") + value.toFixed(digits) + (layer.unit ? " " + layer.unit : "");
}

// World position (mm) of a voxel, or nothing where the page does not know it.
function worldOf(volume, at) {
  if (!volume.affine) return null;
  return volume.affine.map((row) => row[0] * at[0] + row[1] * at[1] + row[2] * at[2] + row[3]);
}
