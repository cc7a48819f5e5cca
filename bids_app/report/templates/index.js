// The page of all scans: sorting, filtering, and marks of sessions to leave out, kept in this browser.
"use strict";

const find = (id) => document.getElementById(id);
const body = document.querySelector("#scans tbody");
const rows = [...body.rows];
const PREFIX = `bids_app quality ${location.pathname} `;
const keyOf = (row) => `${row.dataset.participant} ${row.dataset.session}`;
const memory = new Map();

function kept(key) {
  try {
    return localStorage.getItem(PREFIX + key);
  } catch (error) {
    return memory.get(key) || null;
  }
}

function keep(key, value) {
  memory.set(key, value);
  try {
    localStorage.setItem(PREFIX + key, value);
  } catch (error) {
    // the marks last as long as the page
  }
}

const boxOf = (row) => row.querySelector("input[type=checkbox]");

function mark(row) {
  const out = boxOf(row).checked;
  keep(keyOf(row), out ? "1" : "0");
  for (const other of rows) if (keyOf(other) === keyOf(row)) boxOf(other).checked = out;
  filter();
}

function filter() {
  const name = find("search").value.trim().toLowerCase();
  const which = find("which").value;
  let count = 0;
  for (const row of rows) {
    const flags = row.dataset.flags ? row.dataset.flags.split(",") : [];
    const fits = {
      "": true, "*flagged": flags.length > 0, "*normal": flags.length === 0, "*free": row.dataset.free === "yes",
      "*out": boxOf(row).checked,
    }[which];
    const seen = (fits === undefined ? flags.includes(which) : fits) && row.cells[0].innerText.toLowerCase().includes(name);
    row.hidden = !seen;
    count += seen;
  }
  find("count").textContent = `${count} of ${rows.length} scans`;
  const out = new Set(rows.filter((row) => boxOf(row).checked).map(keyOf));
  find("marked").textContent = `${out.size} marked to leave out`;
}

function valueOf(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.innerText.trim().toLowerCase();
  return cell.dataset.value === "" ? -Infinity : Number(cell.dataset.value);
}

function sort(button) {
  const head = button.closest("th");
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of document.querySelectorAll("#scans thead th")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const column = Number(button.dataset.column);
  const order = rows.map((row, i) => [valueOf(row, column), i, row]);
  order.sort(([a, i], [b, j]) => (a < b ? -1 : a > b ? 1 : i - j) * (down ? -1 : 1));
  body.append(...order.map(([, , row]) => row));
}

function save() {
  const lines = new Map();
  for (const row of rows) {
    lines.set(keyOf(row), [row.dataset.participant, row.dataset.session || "n/a", boxOf(row).checked ? "1" : "0"].join("\t"));
  }
  const text = ["participant_id\tsession_id\texclude", ...lines.values(), ""].join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/tab-separated-values" }));
  link.download = "quality.tsv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  find("table").value = text;
  find("saved").hidden = false;
}

for (const row of rows) {
  const known = kept(keyOf(row));
  boxOf(row).checked = known === null ? row.dataset.out === "yes" : known === "1";
  boxOf(row).addEventListener("change", () => mark(row));
}
document.querySelectorAll("[data-column]").forEach((button) => button.addEventListener("click", () => sort(button)));
find("search").addEventListener("input", filter);
find("which").addEventListener("change", filter);
find("save").addEventListener("click", save);
filter();
