// The page: connects the drawings (state), the pads (cards, pad), the server and the predictions (results).

import { Cards, dropTarget } from "./cards.js";
import { Pad } from "./pad.js";
import { Results } from "./results.js";
import { Classifying, Refused, examples, picture, reduced, fetchSettings } from "./server.js";
import { State } from "./state.js";

const element = (id) => document.getElementById(id);

const notice = {
  // action: {label, run}, the button of the notice; none for an error.
  show(text, action = null) {
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
const showError = (reason) => notice.show(sentence(reason));

function start(settings) {
  const state = new State(settings.steps);
  const results = new Results(settings);
  const names = () => state.withExamples().map((one) => one.name || `class ${state.classes.indexOf(one) + 1}`);
  let penUp = null; // time of the last change of the new drawing
  let refused = false; // whether the last question was

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
      showError(reason);
    },
  );

  const takePictures = async (files) => {
    const images = [];
    for (const file of files) {
      try {
        const content = await reduced(file, settings.picture_pixels);
        if (content.size > settings.picture_bytes) throw new Refused(`the file is larger than ${settings.picture_bytes / 2 ** 20} MiB`);
        images.push(await picture(content));
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        notice.show(`${file.name}: ${error.message}.`);
      }
    }
    return images;
  };

  const ask = () => {
    if (state.question() === null) {
      results.prompt("First draw an example of at least two classes.");
    }
    classifying.ask();
  };

  const cards = new Cards(element("classes"), state, {
    form: settings,
    mostClasses: settings.most_classes,
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
    form: settings,
    image: () => state.query,
    replace: replaceQuery,
    onPicture: takeQuery,
  });
  dropTarget(element("ask"), takeQuery);

  const showSteps = () => {
    element("steps").value = state.steps;
    element("steps-shown").textContent = element("lead-steps").textContent = state.steps;
  };
  element("steps").max = settings.most_steps;
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
  // Replace all drawings, and offer to restore them.
  const replaceAll = (change) => {
    const { classes, query } = state;
    const hadExamples = state.withExamples().length > 0;
    change();
    notice.close();
    showAll();
    if (!hadExamples) return;
    const run = () => {
      Object.assign(state, { classes, query });
      notice.close();
      showAll();
    };
    notice.show("Your drawings were replaced.", { label: "Restore them", run });
  };
  element("start-over").addEventListener("click", () => replaceAll(() => state.startOver()));
  element("example-set").addEventListener("click", async () => {
    try {
      const given = await examples(crypto.getRandomValues(new Uint32Array(1))[0]);
      replaceAll(() => {
        state.classes = [];
        for (const images of given.classes) state.addClass().examples = images;
        state.query = given.query;
      });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      showError(error.message);
    }
  });
  element("notice").querySelector(".close").addEventListener("click", notice.close);
  element("about").textContent =
    `Weights: ${settings.weights}, meta-trained on tasks of ${settings.way} classes. With more classes than that the ` +
    "head is enlarged, and predictions become less accurate.";

  state.onChange(ask);
  showAll();
}

// A file dropped outside its target would replace the page, and the drawings with it.
for (const event of ["dragover", "drop"]) window.addEventListener(event, (each) => each.preventDefault());

try {
  start(await fetchSettings());
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  showError(error.message);
}
