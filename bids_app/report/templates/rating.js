// The rating page: readings one by one, answers kept in this browser as they come, and out as a table.
"use strict";

const SHEET = JSON.parse(document.getElementById("sheet").textContent);
const BLANK = { decision: "", sure: 0, note: "", seconds: 0, skipped: false };
const PAUSE = 350; // ms between the last answer to a scan and the next scan
const find = (id) => document.getElementById(id);

// Answers by code, one entry of the browser's storage each, under the sheet's digest and the rater's code.
class Answers {
  constructor(rater) {
    this.rater = rater;
    this.prefix = `bids_app rating ${SHEET.digest} ${rater} `;
    this.memory = new Map();
    this.kept = true;
    try {
      localStorage.setItem(`${this.prefix}?`, "1");
      localStorage.removeItem(`${this.prefix}?`);
    } catch (error) {
      this.kept = false;
    }
  }

  of(code) {
    let text = this.memory.get(code);
    if (this.kept) text = localStorage.getItem(this.prefix + code) || text;
    try {
      return Object.assign({}, BLANK, text ? JSON.parse(text) : {});
    } catch (error) {
      return Object.assign({}, BLANK);
    }
  }

  put(code, answer) {
    const text = JSON.stringify(answer);
    this.memory.set(code, text);
    try {
      if (this.kept) localStorage.setItem(this.prefix + code, text);
    } catch (error) {
      this.kept = false;
    }
    if (!this.kept) find("unkept").hidden = false;
  }

  done(codes) {
    return codes.filter((code) => this.of(code).decision).length;
  }

  // The sheet of all pages with this rater's columns; a tab or line end in a note becomes a blank.
  table() {
    const cell = (value) => {
      const text = String(value).replace(/[\t\r\n\0]+/g, " ").trim();
      return text === "" ? "n/a" : /^[=+\-@]/.test(text) ? `'${text}` : text;
    };
    const names = ["decision", "sureness", "seconds", "note"].map((name) => `${name}_${this.rater}`);
    const lines = SHEET.rows.map((row) => {
      const { decision, sure, seconds, note } = this.of(row[SHEET.code]);
      return [...row, decision || "n/a", sure || "n/a", seconds ? seconds.toFixed(1) : "n/a", cell(note)].join("\t");
    });
    return [[...SHEET.columns, ...names].join("\t"), ...lines, ""].join("\n");
  }
}

const Reading = {
  answers: null,
  now: -1,
  since: null, // performance.now() when the scan came into sight
  decodes: new Map(),
  viewer: new ScanViewer(find("viewer"), { label: "FLAIR", greedy: true, keep: true }),

  get code() {
    return SHEET.readings[this.now].code;
  },

  get answer() {
    return this.answers.of(this.code);
  },

  get codes() {
    return SHEET.readings.map((reading) => reading.code);
  },

  start(answers) {
    this.answers = answers;
    find("start").hidden = true;
    find("work").hidden = false;
    find("unkept").hidden = answers.kept;
    find("who").textContent = answers.rater;
    this.show(Math.max(0, this.nextOpen(-1)));
  },

  decode(index) {
    if (!this.decodes.has(index)) {
      this.decodes.set(index, decoded(JSON.parse(find(`scan-${index}`).textContent)));
      for (const old of this.decodes.keys()) {
        if (this.decodes.size > 3 && old !== index && old !== this.now) this.decodes.delete(old);
      }
    }
    return this.decodes.get(index);
  },

  // The next reading that waits for an answer, skipped ones last; -1 where there is none.
  nextOpen(from) {
    const order = SHEET.readings.map((_, i) => (from + 1 + i) % SHEET.readings.length);
    const open = order.filter((i) => i !== from && !this.answers.of(SHEET.readings[i].code).decision);
    const fresh = open.find((i) => !this.answers.of(SHEET.readings[i].code).skipped);
    return fresh !== undefined ? fresh : open.length ? open[0] : -1;
  },

  async show(index) {
    this.pause();
    clearTimeout(this.going);
    this.now = index;
    this.describe();
    find("viewer").setAttribute("aria-busy", "true");
    try {
      const volume = await this.decode(index);
      if (this.now !== index) return;
      this.viewer.open(volume);
      find("viewer").dataset.reading = String(SHEET.readings[index].reading);
      find("trouble").hidden = true;
    } catch (error) {
      if (this.now !== index) return;
      find("trouble").textContent = `This scan cannot be shown. ${error.message}`;
      find("trouble").hidden = false;
    }
    find("viewer").removeAttribute("aria-busy");
    this.resume();
    const next = this.nextOpen(index);
    if (next >= 0) setTimeout(() => this.decode(next).catch(() => {}), 50);
  },

  // -- the clock: a scan is being read while it is in sight -----------------------------------

  resume() {
    if (this.since === null && !document.hidden) this.since = performance.now();
  },

  pause() {
    if (this.since === null || this.now < 0) return;
    const seconds = (performance.now() - this.since) / 1000;
    this.since = null;
    this.answers.put(this.code, Object.assign(this.answer, { seconds: this.answer.seconds + seconds }));
  },

  change(values) {
    const before = this.answer;
    const wasOpen = !(before.decision && before.sure);
    this.pause();
    this.answers.put(this.code, Object.assign(this.answer, values));
    this.resume();
    this.describe();
    const complete = this.answer.decision && this.answer.sure;
    if (wasOpen && complete && !("note" in values) && find("auto").checked) {
      clearTimeout(this.going);
      this.going = setTimeout(() => this.onward(), PAUSE);
    }
  },

  onward() {
    const next = this.nextOpen(this.now);
    if (next >= 0) this.show(next);
    else this.describe();
  },

  skip() {
    if (!this.answer.decision) this.change({ skipped: true });
    this.onward();
  },

  beside(by) {
    const index = this.now + by;
    if (index >= 0 && index < SHEET.readings.length) this.show(index);
  },

  // -- words ----------------------------------------------------------------------------------

  describe() {
    const { answer } = this;
    const [done, all] = [this.answers.done(this.codes), SHEET.readings.length];
    const skipped = this.codes.filter((code) => this.answers.of(code).skipped && !this.answers.of(code).decision);
    const reading = SHEET.readings[this.now];
    find("place").textContent = `Scan ${this.now + 1} of ${all}`;
    find("count").textContent = `${done} answered` + (skipped.length ? `, ${skipped.length} skipped` : "");
    find("progress").value = done;
    find("shown").replaceChildren(...reading.shown.flatMap(([name, value]) => [
      element("dt", {}, name), element("dd", {}, value),
    ]));
    find("nothing").hidden = reading.shown.length > 0;
    document.querySelectorAll("[data-level]").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.level === answer.decision));
    });
    document.querySelectorAll("[data-sure]").forEach((button) => {
      button.setAttribute("aria-pressed", String(Number(button.dataset.sure) === answer.sure));
    });
    if (document.activeElement !== find("note")) find("note").value = answer.note;
    find("back").disabled = this.now === 0;
    find("next").disabled = this.now === all - 1;
    find("done").hidden = done < all;
    this.list();
  },

  list() {
    SHEET.readings.forEach((reading, i) => {
      const button = find("list").children[i] || find("list").appendChild(
        element("button", { type: "button", onclick: () => this.show(i) }, String(i + 1)));
      const { decision, skipped } = this.answers.of(reading.code);
      const state = decision ? "answered" : skipped ? "skipped" : "open";
      if (button.className !== state) {
        button.className = state;
        button.setAttribute("aria-label", `Scan ${i + 1}, ${state}`);
      }
      button.setAttribute("aria-current", String(i === this.now));
    });
  },

  save() {
    this.pause();
    this.resume();
    const address = URL.createObjectURL(new Blob([this.answers.table()], { type: "text/tab-separated-values" }));
    element("a", { href: address, download: `rating_${this.answers.rater}_${SHEET.digest.slice(0, 8)}${SHEET.part}.tsv` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    find("table").value = this.answers.table();
    find("saved").hidden = false;
  },

  // Back to the first screen, with nothing left on the page of who read: the next rater sees no answer, note or scan.
  finish() {
    if (!this.answers.kept && find("saved").hidden) return find("save").focus();
    this.pause();
    clearTimeout(this.going);
    [this.answers, this.now] = [null, -1];
    this.viewer.close();
    delete find("viewer").dataset.reading;
    for (const id of ["note", "table", "rater"]) find(id).value = "";
    for (const id of ["shown", "list", "place", "count", "who"]) find(id).replaceChildren();
    for (const id of ["work", "saved", "done", "trouble", "known", "wrong"]) find(id).hidden = true;
    delete find("known").dataset.rater;
    find("auto").checked = true;
    find("start").hidden = false;
    find("rater").focus();
  },

  key(event) {
    if (!this.answers || event.ctrlKey || event.metaKey || event.altKey) return;
    const { target } = event;
    if (target.matches("textarea, input[type=text], select")) {
      if (event.key === "Escape") find("viewer").querySelector("canvas").focus();
      return;
    }
    const arrows = event.key.startsWith("Arrow") || ["Home", "End", "PageUp", "PageDown"].includes(event.key);
    if (target.matches("input[type=range]") && arrows) return;
    if (this.viewer.key(event)) return;
    const level = SHEET.levels.find((each) => each.key === event.key.toLowerCase());
    const acts = {
      ArrowLeft: () => this.beside(-1), ArrowRight: () => this.beside(1), k: () => this.skip(),
      t: () => find("note").focus(),
    };
    if (level) this.change({ decision: level.name, skipped: false });
    else if (/^[1-5]$/.test(event.key)) this.change({ sure: Number(event.key) });
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  },
};

// -- who reads ---------------------------------------------------------------------------------

find("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  const rater = find("rater").value.trim().toLowerCase();
  if (!/^[a-z0-9]{1,16}$/.test(rater)) {
    find("wrong").hidden = false;
    return;
  }
  const answers = new Answers(rater);
  const done = answers.done(SHEET.readings.map((reading) => reading.code));
  const asked = find("known").dataset.rater === rater;
  if (done && !asked) {
    find("known").dataset.rater = rater;
    find("known").textContent = `Answers under the code ${rater} are kept in this browser: ${done} of ` +
      `${SHEET.readings.length}. If they are yours, press Begin again to go on; else choose another code.`;
    find("known").hidden = false;
    return;
  }
  Reading.start(answers);
});

document.querySelectorAll("[data-level]").forEach((button) => {
  button.addEventListener("click", () => Reading.change({ decision: button.dataset.level, skipped: false }));
});
document.querySelectorAll("[data-sure]").forEach((button) => {
  button.addEventListener("click", () => Reading.change({ sure: Number(button.dataset.sure) }));
});
find("note").addEventListener("input", () => Reading.change({ note: find("note").value }));
for (const [id, act] of Object.entries({
  back: () => Reading.beside(-1), next: () => Reading.beside(1), skip: () => Reading.skip(), save: () => Reading.save(),
  finish: () => Reading.finish(),
})) find(id).addEventListener("click", act);
document.addEventListener("keydown", (event) => Reading.key(event));
document.addEventListener("visibilitychange", () => Reading.answers && (document.hidden ? Reading.pause() : Reading.resume()));
window.addEventListener("pagehide", () => Reading.answers && Reading.pause());
window.addEventListener("beforeunload", (event) => {
  if (Reading.answers && !Reading.answers.kept) event.preventDefault();
});
