// A card for every class: its name, a pad to draw an example on, and the stored examples.

import { Pad, drawn } from "./pad.js";

const copy = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

export class Cards {
  // list: the element of the cards; takePictures(files): converts files to images; mostClasses: largest number of classes.
  constructor(list, state, { form, mostClasses, takePictures, onRename }) {
    Object.assign(this, { list, state, form, mostClasses, takePictures, onRename });
    this.build();
  }

  // Rebuild all cards after classes were added or removed.
  build() {
    const { state } = this;
    this.pads = new Map();
    this.list.replaceChildren(...state.classes.map((one, index) => this.#card(one, index)));
    if (state.classes.length < this.mostClasses) this.list.append(this.#adding());
    for (const one of state.classes) this.show(one);
  }

  // Redraw one class after its examples changed.
  show(one) {
    const { card, pad } = this.pads.get(one);
    pad.draw();
    const items = one.examples.map((image, index) => this.#example(one, image, index));
    card.querySelector(".examples").replaceChildren(...items);
    one.examples.forEach((image, index) => drawn(items[index].querySelector("canvas"), image, this.form));
  }

  #card(one, index) {
    const card = copy("class-template");
    const name = card.querySelector(".name");
    const remove = card.querySelector(".remove");
    const title = () => one.name || `class ${index + 1}`;
    name.value = one.name;
    name.setAttribute("aria-label", `Name of class ${index + 1}`);
    remove.disabled = this.state.classes.length <= 2;
    const pad = new Pad(card.querySelector(".slot"), {
      label: `Example of ${title()}`,
      hint: () => (one.examples.length ? "draw another" : "draw an example"),
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
      pad.name(`Example of ${title()}`);
      remove.setAttribute("aria-label", `Remove ${title()}`);
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
    const add = (name) => {
      const one = this.state.addClass(name);
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
      one.examples.push(...images);
      this.#changed(one);
    });
    return card;
  }

  #example(one, image, index) {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.setAttribute("aria-label", `Delete example ${index + 1} of ${one.name || "this class"}`);
    remove.append(document.createElement("canvas"));
    remove.addEventListener("click", () => {
      one.examples.splice(index, 1);
      this.#changed(one);
      const { card, pad } = this.pads.get(one);
      (card.querySelectorAll(".examples button")[Math.max(0, index - 1)] ?? pad.canvas).focus();
    });
    item.append(remove);
    return item;
  }

  async #take(one, files) {
    const images = await this.takePictures(files);
    if (images.length === 0 || !this.state.classes.includes(one)) return;
    one.examples.push(...images);
    this.#changed(one);
  }

  #changed(one) {
    this.show(one);
    this.state.changed();
  }
}

// Take files that are dropped on an element; anything else dropped there is ignored.
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
