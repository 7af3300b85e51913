// Predictions: bars before and after adaptation, the loss of the inner steps, and a replay of the stages.

import { drawn } from "./pad.js";

const element = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(100 * share)}%`;
const FRAME = 110; // milliseconds per stage of the replay

export class Results {
  constructor(form) {
    this.form = form;
    this.answer = null;
    this.names = [];
    element("stage").addEventListener("input", () => this.#stop(() => this.#show(this.#nearest(Number(element("stage").value)))));
    element("replay").addEventListener("click", () => this.#replay());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#drawSeen());
  }

  // Show what to do next while there is no prediction.
  prompt(text) {
    this.#stop();
    this.answer = null;
    this.#setVerdict([text]);
    element("results").classList.add("waiting");
    element("seen").hidden = true;
    this.#fill([], [], []);
    this.#curve([], 0);
  }

  show(answer, names) {
    this.#stop();
    this.answer = answer;
    this.names = names;
    element("results").classList.remove("waiting");
    element("stage").max = answer.losses.length;
    this.#show(answer.stages.length - 1);
    const last = answer.stages.at(-1).probabilities;
    element("seen").hidden = last === null;
    this.#drawSeen();
    if (last === null) {
      this.#setVerdict(["The network has adapted to your examples. Draw one more here."]);
      return;
    }
    const best = last.indexOf(Math.max(...last));
    if (answer.rejected) {
      const none = Object.assign(document.createElement("b"), { textContent: "none of these" });
      this.#setVerdict([none, `${percent(answer.none)}; the nearest is ${names[best]}`]);
      return;
    }
    this.#setVerdict([Object.assign(document.createElement("b"), { textContent: names[best] }), percent(last[best])]);
  }

  rename(names) {
    if (this.answer) this.show(this.answer, names);
  }

  // The index of the stage nearest to a number of steps.
  #nearest(steps) {
    const distances = this.answer.stages.map((stage) => Math.abs(stage.steps - steps));
    return distances.indexOf(Math.min(...distances));
  }

  #setVerdict(parts) {
    const verdict = element("verdict");
    verdict.classList.toggle("answer", parts.length > 1);
    verdict.replaceChildren(...parts.flatMap((part) => [part, " "]).slice(0, -1));
  }

  #show(index) {
    const { stages, losses } = this.answer;
    const stage = stages[index];
    element("stage").value = stage.steps;
    const shown = stage.steps === 1 ? "1 step" : `${stage.steps} steps`;
    element("stage").setAttribute("aria-valuetext", shown);
    element("after-title").textContent = `After ${shown}`;
    this.#fill(this.names, stages[0].probabilities ?? [], stage.probabilities ?? []);
    this.#curve(losses, stage.steps);
  }

  #fill(names, before, after) {
    const rows = names.map((name, i) => {
      const row = document.createElement("tr");
      const heading = Object.assign(document.createElement("th"), { scope: "row", textContent: name, title: name });
      row.append(heading, cell(before, i), cell(after, i));
      return row;
    });
    const body = element("bars");
    if (body.rows.length !== rows.length) body.replaceChildren(...rows);
    else rows.forEach((row, i) => update(body.rows[i], row)); // so that the bars move smoothly
  }

  #curve(losses, steps) {
    const highest = Math.max(1e-6, ...losses);
    const x = (step) => (400 * step) / losses.length; // a loss is drawn at the start of its step
    const y = (loss) => 78 - (74 * loss) / highest;
    const points = losses.map((loss, i) => `${x(i).toFixed(1)},${y(loss).toFixed(1)}`);
    if (points.length === 1) points.push(`400,${y(losses[0]).toFixed(1)}`);
    const figure = element("curve");
    figure.querySelector(".line").setAttribute("d", points.length ? `M${points.join("L")}` : "");
    const now = figure.querySelector(".now");
    const at = losses.length ? (400 * steps) / losses.length : 0;
    now.setAttribute("x1", at);
    now.setAttribute("x2", at);
    const shown = (loss) => (loss < 0.01 ? "< 0.01" : loss.toFixed(2));
    element("loss").textContent = losses.length ? `${shown(losses[0])} → ${shown(losses.at(-1))}` : "";
  }

  #replay() {
    if (!this.answer) return;
    this.#stop();
    let index = 0;
    this.#show(0);
    this.timer = setInterval(() => {
      index += 1;
      this.#show(index);
      if (index >= this.answer.stages.length - 1) this.#stop();
    }, FRAME);
  }

  #stop(then = () => {}) {
    clearInterval(this.timer);
    if (this.answer) then();
  }

  #drawSeen() {
    const { side } = this.form;
    if (!this.answer?.seen) return;
    element("seen").querySelector("figcaption").textContent = `as the network sees it, ${side} × ${side}`;
    drawn(element("seen").querySelector("canvas"), this.answer.seen, this.form);
  }
}

function cell(shares, index) {
  const made = document.createElement("td");
  if (shares.length === 0) return made;
  const bar = document.createElement("span");
  bar.className = "meter";
  const fill = document.createElement("span");
  fill.style.transform = `scaleX(${shares[index].toFixed(4)})`;
  bar.append(fill);
  made.classList.toggle("best", shares[index] === Math.max(...shares));
  made.append(bar, Object.assign(document.createElement("span"), { className: "percent", textContent: percent(shares[index]) }));
  return made;
}

function update(old, made) {
  [...made.cells].forEach((cell, i) => {
    const there = old.cells[i];
    if (i === 0 || !there.firstChild || !cell.firstChild) return there.replaceWith(cell);
    there.className = cell.className;
    there.querySelector(".meter span").style.transform = cell.querySelector(".meter span").style.transform;
    there.querySelector(".percent").textContent = cell.querySelector(".percent").textContent;
  });
}
