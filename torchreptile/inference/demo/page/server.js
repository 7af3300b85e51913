// Questions to the server that this page came from; whatever goes wrong comes out as a Refused with one line for people.

export class Refused extends Error {}

async function answer(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Refused("the server does not answer; is “reptile demo” still running?");
  }
  let said = null;
  try {
    said = await response.json();
  } catch {
    // Not from the demo itself, but from the library below it.
  }
  if (!response.ok || said === null) throw new Refused(said?.error ?? `the server said ${response.status}`);
  return said;
}

export const settings = () => answer("settings");
export const examples = (seed) => answer(`examples?seed=${seed}`);
export const picture = (file) => answer("picture", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });

// One question at a time: what changes meanwhile is asked once the answer is there, and that answer is dropped.
export class Classifying {
  // question(): what to ask now, or null; onAnswer(answer, question); onRefused(reason).
  constructor(question, onAnswer, onRefused) {
    Object.assign(this, { question, onAnswer, onRefused });
    this.busy = this.stale = false;
  }

  async ask() {
    this.stale = true;
    if (this.busy) return;
    this.busy = true;
    while (this.stale) {
      this.stale = false;
      const question = this.question();
      if (question === null) continue;
      try {
        const said = await answer("classify", {
          method: "POST",
          body: JSON.stringify(question),
          headers: { "Content-Type": "application/json" },
        });
        if (!this.stale) this.onAnswer(said, question);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (!this.stale) this.onRefused(error.message);
      }
    }
    this.busy = false;
  }
}
