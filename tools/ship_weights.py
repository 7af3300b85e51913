"""Put what a run learned into the package, with a card that says where it comes from and how good it is.

    python tools/ship_weights.py RUN NAME COMMAND

COMMAND is what trained the run, as somebody else would type it. Writes torchreptile/weights/NAME.safetensors and
NAME.json from the run's last checkpoint. The card's results are the run's own evaluations (eval-*.json) on classes it
was not trained on, each with its split, so run `reptile evaluate RUN` first, with and without --shots.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from torchreptile.checkpoint import RunFolder, load_checkpoint
from torchreptile.errors import RunError, TorchReptileError
from torchreptile.evaluation import MODES, Evaluation
from torchreptile.learned import load_learned, save_weights

WEIGHTS = Path(__file__).parents[1] / "torchreptile" / "weights"
LICENCES = {
    "omniglot": "MIT, as this package. Trained on Omniglot (Brenden Lake, 2015), which is under the MIT licence.",
    "mini-imagenet": "MIT, as this package. Trained on mini-ImageNet, whose pictures are ImageNet's and for research "
    "alone; the weights hold none of them.",
    "glyphs": "MIT, as this package. Trained on characters that this package generates.",
}


def result(evaluation: Evaluation, name: str) -> dict[str, Any]:
    """One line of the card: percent, with 95% confidence intervals over episodes; the command repeats it."""
    task, settings = evaluation.config.task, evaluation.config.evaluation
    line: dict[str, Any] = {
        "dataset": task.dataset,
        "split": evaluation.split,
        "way": task.way,
        "shots": task.shots,
        "episodes": settings.eval_episodes,
        "eval_steps": settings.eval_steps,
        "seed": evaluation.seed,
        "command": f"reptile evaluate {name} --dataset {task.dataset} --shots {task.shots} "
        f"--episodes {settings.eval_episodes} --seed {evaluation.seed} --eval-batch {settings.eval_batch}"
        + ("" if evaluation.split == "test" else f" --split {evaluation.split}"),
        "minutes": round(evaluation.seconds / 60, 1),
        "hardware": f"{evaluation.environment['processor']}, torch {evaluation.environment['torch']}",
    }
    for mode in MODES:
        accuracy, published = getattr(evaluation.result, mode), evaluation.published(mode)
        line[mode] = {"accuracy": round(100 * accuracy.mean, 2), "ci95": round(100 * accuracy.ci95, 2)}
        if published is not None:
            line[mode] |= {"published": published.accuracy, "published_margin": published.margin}
    return line


def main(run: str, name: str, command: str) -> None:
    """Write weights and card."""
    folder = RunFolder(Path(run))
    learned, checkpoint = load_learned(run), load_checkpoint(folder.last)
    found = [Evaluation.from_json(file.read_text()) for file in sorted(folder.path.glob("eval-*.json"))]
    results = [result(e, name) for e in found if e.split != "train" and e.step == checkpoint.step]
    if not results:
        raise RunError(f"{run} has no evaluation of its last checkpoint on new classes; run `reptile evaluate {run}`")
    task = learned.config.task
    card = {
        "data": {
            "dataset": task.dataset,
            "split_scheme": task.split_scheme,
            "split_seed": task.split_seed,
            "training_images": checkpoint.data,
        },
        "licence": LICENCES[task.dataset],
        "training": {
            "seed": learned.config.run.seed,
            "hours": round(checkpoint.seconds / 3600, 2),
            "command": command,
            "torch": json.loads(folder.env_file.read_text())["torch"],
        },
        "results": sorted(results, key=lambda line: (line["dataset"], line["shots"])),
    }
    save_weights(dataclasses.replace(learned, name=name), WEIGHTS / f"{name}.safetensors", card)
    print(WEIGHTS / f"{name}.safetensors", (WEIGHTS / f"{name}.safetensors").stat().st_size, "bytes")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except TorchReptileError as error:
        raise SystemExit(f"tools/ship_weights.py: {error}") from error
