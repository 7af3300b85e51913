// A drawing pad for pen, finger, mouse or keyboard; it also shows a picture file.

const PEN = 0.034; // line width as a share of the pad's width
const NEAR = 0.004; // points closer than this to the last one are dropped
const STEP = 1 / 28; // distance that an arrow key moves the pen
const MOST_POINTS = 4000; // the server accepts 5,000
const round = (value) => Math.round(Math.min(1, Math.max(0, value)) * 1000) / 1000;

export class Pad {
  // slot: the parent element; image(): the current image; replace(image): sets another; onPicture(files), onKeep().
  constructor(slot, { label, hint, image, replace, onPicture, onKeep, form }) {
    this.image = image;
    this.replace = replace;
    this.hintText = hint; // text on the empty pad
    this.form = form;
    this.onKeep = onKeep;
    slot.replaceChildren(document.getElementById("pad-template").content.cloneNode(true));
    this.canvas = slot.querySelector("canvas");
    this.hint = slot.querySelector(".hint");
    this.buttons = Object.fromEntries(["undo", "clear", "keep"].map((name) => [name, slot.querySelector(`.${name}`)]));
    this.file = slot.querySelector("input[type=file]");
    this.stroke = null; // the stroke being drawn
    this.cursor = null; // position of the keyboard's pen
    this.name(label);

    this.buttons.undo.addEventListener("click", () => this.undo());
    this.buttons.clear.addEventListener("click", () => this.clear());
    if (onKeep) this.buttons.keep.addEventListener("click", onKeep);
    else this.buttons.keep.remove();
    this.file.multiple = Boolean(onKeep);
    this.file.addEventListener("change", () => {
      onPicture([...this.file.files]);
      this.file.value = "";
    });
    for (const [event, handler] of [
      ["pointerdown", this.#down],
      ["pointermove", this.#move],
      ["pointerup", this.#up],
      ["pointercancel", this.#up],
      ["keydown", this.#key],
      ["blur", this.#blur],
    ])
      this.canvas.addEventListener(event, handler.bind(this));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  name(label) {
    this.canvas.setAttribute("aria-label", `${label}. Arrow keys move the pen, Space puts it down or lifts it.`);
    for (const [name, button] of Object.entries(this.buttons)) {
      const verb = { undo: "Undo a stroke", clear: "Clear", keep: "Keep and draw another" }[name];
      button.setAttribute("aria-label", `${verb}: ${label}`);
    }
    this.file.setAttribute("aria-label", `Take a picture file: ${label}`);
  }

  undo() {
    const { strokes } = this.image();
    if (strokes?.length) this.replace({ strokes: strokes.slice(0, -1) });
  }

  clear() {
    this.stroke = null;
    this.replace({ strokes: [] });
  }

  draw() {
    const image = this.image();
    const strokes = image.strokes ?? [];
    const filled = "pixels" in image || strokes.length > 0;
    this.hint.textContent = this.hintText();
    this.hint.hidden = filled || this.stroke !== null || this.cursor !== null;
    this.buttons.undo.disabled = strokes.length === 0;
    this.buttons.clear.disabled = this.buttons.keep.disabled = !filled;
    const paper = drawn(this.canvas, this.stroke ? { strokes: [...strokes, this.stroke] } : image, this.form);
    if (this.cursor) cross(paper, this.canvas.width, this.cursor, this.stroke !== null);
  }

  #down(event) {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.cursor = null;
    this.stroke = [];
    this.pointer = event.pointerId;
    this.#add(...this.#place(event));
  }

  #move(event) {
    if (event.pointerId !== this.pointer || !this.stroke) return;
    // Browsers send one event per frame; the coalesced events hold the positions in between.
    for (const each of event.getCoalescedEvents?.() ?? [event]) this.#add(...this.#place(each));
  }

  #up(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.#end();
  }

  #end() {
    if (!this.stroke) return;
    const strokes = [...(this.image().strokes ?? []), this.stroke];
    this.stroke = null;
    this.replace({ strokes });
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [round((event.clientX - box.left) / box.width), round((event.clientY - box.top) / box.height)];
  }

  #add(x, y) {
    const points = this.stroke;
    const before = (this.image().strokes ?? []).reduce((sum, stroke) => sum + stroke.length / 2, 0);
    if (before + points.length / 2 >= MOST_POINTS) return;
    if (points.length && Math.hypot(points.at(-2) - x, points.at(-1) - y) < NEAR) return;
    points.push(x, y);
    this.draw();
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.ctrlKey || event.metaKey) {
      if (event.key !== "z") return;
      this.undo();
    } else if (event.key in moves) {
      const [right, down] = moves[event.key];
      const { x, y } = this.cursor ?? { x: 0.5, y: 0.5 };
      this.cursor = { x: round(x + right * STEP), y: round(y + down * STEP) };
      if (this.stroke) this.#add(this.cursor.x, this.cursor.y);
      this.draw();
    } else if (event.key === " ") {
      this.cursor ??= { x: 0.5, y: 0.5 };
      if (this.stroke) this.#end();
      else {
        this.stroke = [];
        this.#add(this.cursor.x, this.cursor.y);
      }
    } else if (event.key === "Backspace") this.undo();
    else if (event.key === "Delete") this.clear();
    else if (event.key === "Enter" && this.onKeep) {
      this.#end();
      this.onKeep();
    } else return;
    event.preventDefault();
  }

  #blur() {
    this.cursor = null;
    this.#end();
    this.draw();
  }
}

// Draw an image on a canvas in the colours of the page, and return the canvas's context.
export function drawn(canvas, image, form) {
  const side = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
  if (canvas.width !== side || canvas.height !== side) canvas.width = canvas.height = side;
  const paper = canvas.getContext("2d");
  paper.clearRect(0, 0, side, side);
  const ink = getComputedStyle(canvas).color;
  if ("pixels" in image) {
    paper.imageSmoothingEnabled = false;
    paper.drawImage(small(image.pixels, form, ink), 0, 0, side, side);
    return paper;
  }
  paper.strokeStyle = paper.fillStyle = ink;
  paper.lineWidth = PEN * side;
  paper.lineCap = paper.lineJoin = "round";
  for (const stroke of image.strokes) {
    paper.beginPath();
    paper.moveTo(stroke[0] * side, stroke[1] * side);
    for (let i = 0; i < stroke.length; i += 2) paper.lineTo(stroke[i] * side, stroke[i + 1] * side);
    paper.stroke();
  }
  return paper;
}

// A canvas with the pixels of an image; grey images become ink on a transparent ground.
function small(pixels, { channels, side }, ink) {
  const bytes = Uint8Array.from(atob(pixels), (letter) => letter.charCodeAt(0));
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d");
  const shown = context.createImageData(side, side);
  const [red, green, blue] = ink.match(/\d+/g).map(Number);
  for (let i = 0; i < side * side; i++) {
    const colour =
      channels === 1
        ? [red, green, blue, 255 - bytes[i]]
        : [bytes[i], bytes[i + side * side], bytes[i + 2 * side * side], 255];
    shown.data.set(colour, 4 * i);
  }
  context.putImageData(shown, 0, 0);
  return canvas;
}

function cross(paper, side, { x, y }, down) {
  const reach = side * (down ? 0.03 : 0.05);
  paper.strokeStyle = getComputedStyle(paper.canvas).accentColor;
  paper.lineWidth = Math.max(2, side / 100);
  paper.beginPath();
  paper.moveTo(x * side - reach, y * side);
  paper.lineTo(x * side + reach, y * side);
  paper.moveTo(x * side, y * side - reach);
  paper.lineTo(x * side, y * side + reach);
  paper.stroke();
}
