// What has been drawn, and where it survives a reload: this tab's own storage, so that two tabs are two demos.
//
// An image is {strokes: [[x, y, x, y, ...], ...]}, from 0 to 1 across the paper, or {pixels: base64}, as the server
// gives and takes it.

const KEY = "reptile-demo";
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

const empty = () => ({ strokes: [] });
export const isEmpty = (image) => !("pixels" in image) && image.strokes.length === 0;

export class State {
  constructor(steps) {
    this.steps = steps;
    this.listeners = [];
    this.startOver();
    this.#restore();
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  // To be called after whatever changes what the network is asked; names are no part of that.
  changed() {
    this.save();
    for (const listener of this.listeners) listener();
  }

  save() {
    const { classes, query, steps } = this;
    try {
      sessionStorage.setItem(KEY, JSON.stringify({ classes, query, steps }));
    } catch {
      // Storage is full or forbidden: the demo works on, and a reload loses the drawings.
    }
  }

  startOver() {
    this.classes = [];
    for (let i = 0; i < 3; i++) this.addClass();
    this.query = empty();
  }

  addClass(name = this.#freeLetter()) {
    const added = { name, draft: empty(), kept: [] };
    this.classes.push(added);
    return added;
  }

  // What is on the pad counts at once; keeping it makes room for another.
  keep(one) {
    if (isEmpty(one.draft)) return;
    one.kept.push(one.draft);
    one.draft = empty();
  }

  images(one) {
    return isEmpty(one.draft) ? one.kept : [...one.kept, one.draft];
  }

  // Classes that have an example, in order.
  taught() {
    return this.classes.filter((one) => this.images(one).length > 0);
  }

  // {classes, query, steps} as the server takes it; null while there is nothing to adapt to.
  question() {
    const taught = this.taught();
    if (taught.length < 2) return null;
    return {
      classes: taught.map((one) => this.images(one)),
      query: isEmpty(this.query) ? null : this.query,
      steps: this.steps,
    };
  }

  #freeLetter() {
    const taken = new Set(this.classes.map((one) => one.name));
    return [...LETTERS].find((letter) => !taken.has(letter)) ?? "";
  }

  #restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY));
      if (kept) ({ classes: this.classes, query: this.query, steps: this.steps } = kept);
    } catch {
      // Nothing that can be read: begin anew.
    }
  }
}
