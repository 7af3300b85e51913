// Requests to the server of this page; every failure becomes a Refused with one readable line.

export class Refused extends Error {}

async function answer(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Refused("the server does not answer; is “reptile demo” still running?");
  }
  let content = null;
  try {
    content = await response.json();
  } catch {
    // The response comes from the HTTP library, not from the demo, and is not JSON.
  }
  if (!response.ok || content === null) throw new Refused(content?.error ?? `the server answered ${response.status}`);
  return content;
}

export const fetchSettings = () => answer("settings");
export const examples = (seed) => answer(`examples?seed=${seed}`);
export const picture = (file) => answer("picture", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });

// A picture file with more pixels than the server takes, reduced to half of that; any other file as it is, and so is one
// that this browser cannot read, which the server may.
export async function reduced(file, most) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return file;
  }
  if (bitmap.width * bitmap.height <= most) return file;
  const scale = Math.sqrt(most / 2 / (bitmap.width * bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(scale * bitmap.width));
  canvas.height = Math.max(1, Math.round(scale * bitmap.height));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob((blob) => done(blob ?? file), "image/png"));
}

// One question at a time: if the drawings change meanwhile, the answer is dropped and they are sent once it is in.
export class Classifying {
  // question(): the question to send, or null; onAnswer(answer, question); onRefused(reason).
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
        const received = await answer("classify", {
          method: "POST",
          body: JSON.stringify(question),
          headers: { "Content-Type": "application/json" },
        });
        if (!this.stale) this.onAnswer(received, question);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (!this.stale) this.onRefused(error.message);
      }
    }
    this.busy = false;
  }
}
