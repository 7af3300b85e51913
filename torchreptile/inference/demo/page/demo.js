// The page: joins what is drawn (state), where (cards, pad), the server, and what it said (results).

import { Cards, dropTarget } from "./cards.js";
import { Pad } from "./pad.js";
import { Results } from "./results.js";
import { Classifying, Refused, examples, picture, settings } from "./server.js";
import { State } from "./state.js";

const element = (id) => document.getElementById(id);

const notice = {
  // action: {label, run}, something that can be done about it
  tell(text, action = null) {
    const bar = element("notice");
    bar.hidden = false;
    bar.classList.toggle("wrong", action === null);
    bar.querySelector("p").textContent = text;
    const button = bar.querySelector(".action");
    button.hidden = action === null;
    button.textContent = action?.label;
    button.onclick = action?.run;
  },
  close() {
    element("notice").hidden = true;
  },
};
const sentence = (reason) => `${reason[0].toUpperCase()}${reason.slice(1)}${reason.endsWith("?") ? "" : "."}`;
const complain = (reason) => notice.tell(sentence(reason));

function start(known) {
  const state = new State(known.steps);
  const results = new Results(known);
  const names = () => state.taught().map((one) => one.name || `class ${state.classes.indexOf(one) + 1}`);
  let penUp = null; // when the drawing last changed
  let refused = false; // the last question

  const classifying = new Classifying(
    () => state.question(),
    (answer) => {
      if (refused) notice.close();
      refused = false;
      results.show(answer, names());
      if (penUp !== null && answer.seen) {
        const start = penUp;
        requestAnimationFrame(() => performance.measure("pen-up to prediction", { start, end: performance.now() }));
      }
      penUp = null;
    },
    (reason) => {
      refused = true;
      complain(reason);
    },
  );

  const takePictures = async (files) => {
    const images = [];
    for (const file of files) {
      try {
        if (file.size > known.picture_bytes) throw new Refused(`it has more than ${known.picture_bytes / 2 ** 20} MiB; make it smaller`);
        images.push(await picture(file));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        notice.tell(`${file.name}: ${error.message}.`);
      }
    }
    return images;
  };

  const askAgain = () => {
    if (state.question() === null) {
      results.prompt("First draw an example in two classes or more.");
    }
    classifying.ask();
  };

  const cards = new Cards(element("classes"), state, {
    form: known,
    mostClasses: known.most_classes,
    takePictures,
    onRename: () => results.rename(names()),
  });

  const takeQuery = async (files) => {
    const [image] = await takePictures(files.slice(0, 1));
    if (image) replaceQuery(image);
  };
  const replaceQuery = (image) => {
    penUp = performance.now();
    state.query = image;
    query.draw();
    state.changed();
  };
  const query = new Pad(element("query-pad"), {
    label: "New drawing",
    hint: () => "draw one more",
    form: known,
    image: () => state.query,
    replace: replaceQuery,
    onPicture: takeQuery,
  });
  dropTarget(element("ask"), takeQuery);

  const showSteps = () => {
    element("steps").value = state.steps;
    element("steps-shown").textContent = element("lead-steps").textContent = state.steps;
  };
  element("steps").max = known.most_steps;
  element("steps").addEventListener("input", () => {
    state.steps = Number(element("steps").value);
    showSteps();
    state.changed();
  });

  const showAll = () => {
    cards.build();
    query.draw();
    showSteps();
    state.changed();
  };
  // Other drawings in place of those there are, which can be had back.
  const replaceAll = (put) => {
    const { classes, query } = state;
    const worth = state.taught().length > 0;
    put();
    notice.close();
    showAll();
    if (!worth) return;
    const run = () => {
      Object.assign(state, { classes, query });
      notice.close();
      showAll();
    };
    notice.tell("Your drawings were put away.", { label: "Bring them back", run });
  };
  element("start-over").addEventListener("click", () => replaceAll(() => state.startOver()));
  element("example-set").addEventListener("click", async () => {
    try {
      const given = await examples(crypto.getRandomValues(new Uint32Array(1))[0]);
      replaceAll(() => {
        state.classes = [];
        for (const kept of given.classes) state.addClass().kept = kept;
        state.query = given.query;
      });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      complain(error.message);
    }
  });
  element("notice").querySelector(".close").addEventListener("click", notice.close);
  element("about").textContent =
    `Weights: ${known.weights}, meta-trained on tasks of ${known.way} classes. With more classes than that the ` +
    "network gets a makeshift head, and is less sure.";

  state.onChange(askAgain);
  showAll();
}

// A file dropped beside its target would replace the page, and the drawings with it.
for (const event of ["dragover", "drop"]) window.addEventListener(event, (each) => each.preventDefault());

try {
  start(await settings());
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  complain(error.message);
}
