// A card for every class: its name, paper to draw an example on, and the examples that were kept.

import { Pad, drawn } from "./pad.js";

const copy = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

export class Cards {
  // list: the element they go into; takePictures(files): images of them; mostClasses: that there may be.
  constructor(list, state, { form, mostClasses, takePictures, onRename }) {
    Object.assign(this, { list, state, form, mostClasses, takePictures, onRename });
    this.build();
  }

  // Anew, where classes have come or gone.
  build() {
    const { state } = this;
    this.pads = new Map();
    this.list.replaceChildren(...state.classes.map((one, index) => this.#card(one, index)));
    if (state.classes.length < this.mostClasses) this.list.append(this.#adding());
    for (const one of state.classes) this.show(one);
  }

  // One class, where its examples have changed.
  show(one) {
    const { card, pad } = this.pads.get(one);
    pad.draw();
    const items = one.kept.map((image, index) => this.#kept(one, image, index));
    card.querySelector(".kept").replaceChildren(...items);
    one.kept.forEach((image, index) => drawn(items[index].querySelector("canvas"), image, this.form));
  }

  #card(one, index) {
    const card = copy("class-template");
    const name = card.querySelector(".name");
    const remove = card.querySelector(".remove");
    const called = () => one.name || `class ${index + 1}`;
    name.value = one.name;
    name.setAttribute("aria-label", `Name of class ${index + 1}`);
    remove.disabled = this.state.classes.length <= 2;
    const pad = new Pad(card.querySelector(".slot"), {
      label: `Example of ${called()}`,
      hint: () => (one.kept.length ? "draw another" : "draw an example"),
      form: this.form,
      image: () => one.draft,
      replace: (image) => {
        one.draft = image;
        this.#changed(one);
      },
      onKeep: () => {
        this.state.keep(one);
        this.#changed(one);
        pad.canvas.focus({ preventScroll: true });
      },
      onPicture: (files) => this.#take(one, files),
    });
    this.pads.set(one, { card, pad });
    const label = () => {
      pad.name(`Example of ${called()}`);
      remove.setAttribute("aria-label", `Remove ${called()}`);
    };
    label();
    name.addEventListener("input", () => {
      one.name = name.value.trim();
      label();
      this.state.save();
      this.onRename();
    });
    remove.addEventListener("click", () => {
      this.state.classes.splice(this.state.classes.indexOf(one), 1);
      this.build();
      this.state.changed();
      this.list.querySelector(".name").focus();
    });
    dropTarget(card, (files) => this.#take(one, files));
    return card;
  }

  #adding() {
    const card = copy("add-template");
    const add = (named) => {
      const one = this.state.addClass(named);
      this.build();
      this.state.changed();
      return one;
    };
    card.querySelector("button").addEventListener("click", () => {
      const one = add();
      this.pads.get(one).card.querySelector(".name").select();
    });
    dropTarget(card, async (files) => {
      const stem = files[0].name.replace(/\.[^.]*$/, "").slice(0, 24);
      const images = await this.takePictures(files);
      if (images.length === 0) return;
      const one = add(stem);
      one.kept.push(...images);
      this.#changed(one);
    });
    return card;
  }

  #kept(one, image, index) {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.setAttribute("aria-label", `Delete example ${index + 1} of ${one.name || "this class"}`);
    remove.append(document.createElement("canvas"));
    remove.addEventListener("click", () => {
      one.kept.splice(index, 1);
      this.#changed(one);
      const { card, pad } = this.pads.get(one);
      (card.querySelectorAll(".kept button")[Math.max(0, index - 1)] ?? pad.canvas).focus();
    });
    item.append(remove);
    return item;
  }

  async #take(one, files) {
    const images = await this.takePictures(files);
    if (images.length === 0 || !this.state.classes.includes(one)) return;
    one.kept.push(...images);
    this.#changed(one);
  }

  #changed(one) {
    this.show(one);
    this.state.changed();
  }
}

// Files that are dropped on an element; anything else that is dropped there stays without effect.
export function dropTarget(element, take) {
  element.addEventListener("dragover", (event) => {
    event.preventDefault();
    element.classList.add("over");
  });
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length) take(files);
  });
}
