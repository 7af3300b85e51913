// The drawings, which survive a reload in the storage of the tab, so that two tabs are two demos.
//
// An image is {strokes: [[x, y, x, y, ...], ...]}, from 0 to 1 across the pad, or {pixels: base64}, as in requests and
// answers of the server.

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

  // To be called after every change of the question; names are not part of it.
  changed() {
    this.save();
    for (const listener of this.listeners) listener();
  }

  save() {
    const { classes, query, steps } = this;
    try {
      sessionStorage.setItem(KEY, JSON.stringify({ classes, query, steps }));
    } catch {
      // Storage is full or forbidden: the demo still works, but a reload loses the drawings.
    }
  }

  startOver() {
    this.classes = [];
    for (let i = 0; i < 3; i++) this.addClass();
    this.query = empty();
  }

  addClass(name = this.#freeLetter()) {
    const added = { name, draft: empty(), examples: [] };
    this.classes.push(added);
    return added;
  }

  // Store the drawing on the pad, which counts already, and clear the pad for another.
  keep(one) {
    if (isEmpty(one.draft)) return;
    one.examples.push(one.draft);
    one.draft = empty();
  }

  images(one) {
    return isEmpty(one.draft) ? one.examples : [...one.examples, one.draft];
  }

  // Classes that have an example, in order.
  withExamples() {
    return this.classes.filter((one) => this.images(one).length > 0);
  }

  // {classes, query, steps} for the server; null while there are fewer than two classes to adapt to.
  question() {
    const classes = this.withExamples();
    if (classes.length < 2) return null;
    return {
      classes: classes.map((one) => this.images(one)),
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
      const stored = JSON.parse(sessionStorage.getItem(KEY));
      if (stored) ({ classes: this.classes, query: this.query, steps: this.steps } = stored);
    } catch {
      // Nothing readable is stored: start over.
    }
  }
}
