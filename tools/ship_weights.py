"""Add a run's weights to the package, with a card that records their origin and accuracy.

    python tools/ship_weights.py RUN NAME COMMAND

COMMAND is the command that repeats the training. Writes NAME.safetensors and NAME.json into
torchreptile/training/shipped_weights from the run's last checkpoint. The card lists the run's evaluations
(eval-*.json) on classes it was not trained on; of evaluations that differ only in the number of episodes, the largest
counts. So run `reptile evaluate RUN` first, with and without --shots.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from torchreptile.core.config.presets import PRESETS
from torchreptile.core.environment import computed_by
from torchreptile.core.errors import RunError, TorchReptileError
from torchreptile.data.splits import resolve_scheme
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.labels import MODES
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.weights import load_weights, save_weights

WEIGHTS = Path(__file__).parents[1] / "torchreptile" / "training" / "shipped_weights"
LICENCES = {
    "omniglot": "MIT, as this package. Trained on Omniglot (Brenden Lake, 2015), which is under the MIT licence.",
    "mini-imagenet": "MIT, as this package. Trained on mini-ImageNet, whose pictures are ImageNet's and for research "
    "alone; the weights hold none of them.",
    "glyphs": "MIT, as this package. Trained on characters that this package generates.",
}


def result(evaluation: Evaluation, name: str) -> dict[str, Any]:
    """Return one result of the card: accuracies in percent with 95% confidence intervals, and the command for them."""
    task, settings = evaluation.config.task, evaluation.config.evaluation
    line: dict[str, Any] = {
        "dataset": task.dataset,
        "split": evaluation.split,
        "way": task.way,
        "shots": task.shots,
        "episodes": settings.eval_episodes,
        "eval_steps": settings.eval_steps,
        "seed": evaluation.seed,
        "command": f"reptile evaluate {name} --dataset {task.dataset} --split {evaluation.split} --way {task.way} "
        f"--shots {task.shots} --episodes {settings.eval_episodes} --seed {evaluation.seed} "
        f"--eval-steps {settings.eval_steps} --eval-batch {settings.eval_batch}",
        "minutes": round(evaluation.seconds / 60, 1),
        "hardware": computed_by(evaluation.environment),
    }
    for mode in MODES:
        accuracy = getattr(evaluation.result, mode)
        published = evaluation.published(mode) if evaluation.trained_on == task.title else None
        line[mode] = {"accuracy": round(100 * accuracy.mean, 2), "ci95": round(100 * accuracy.ci95, 2)}
        if published is not None:
            line[mode] |= {"published": published.accuracy, "published_margin": published.margin}
    return line


def evaluations(folder: RunFolder, step: int) -> list[Evaluation]:
    """Return a run's evaluations on new classes; of those that differ only in episodes, the one with most."""
    found = [Evaluation.from_json(file.read_text()) for file in sorted(folder.path.glob("eval-*.json"))]
    largest: dict[tuple[object, ...], Evaluation] = {}
    for evaluation in sorted(found, key=lambda evaluation: evaluation.config.evaluation.eval_episodes):
        task, how = evaluation.config.task, evaluation.config.evaluation
        if evaluation.split != "train" and evaluation.step == step:
            kind = (task.dataset, evaluation.split, task.shots, task.way, how.eval_steps, how.eval_batch)
            largest[kind] = evaluation
    return [largest[kind] for kind in sorted(largest, key=str)]


def main(run: str, name: str, command: str, weights: Path = WEIGHTS) -> None:
    """Write weights and card into the folder ``weights``."""
    folder = RunFolder(Path(run))
    trained, checkpoint = load_weights(run), load_checkpoint(folder.last)
    results = [result(evaluation, name) for evaluation in evaluations(folder, checkpoint.step)]
    if not results:
        raise RunError(f"{run} has no evaluation of its last checkpoint on new classes; run `reptile evaluate {run}`")
    task, outer = trained.config.task, trained.config.outer
    # A training limited by time has no published length to compare with.
    as_published = PRESETS.get(f"{task.dataset}-{task.shots}shot-{task.way}way")
    card = {
        "data": {
            "dataset": task.dataset,
            "split_scheme": resolve_scheme(task.dataset, task.split_scheme),
            "split_seed": task.split_seed,
            "training_images": checkpoint.data,
        },
        "licence": LICENCES[task.dataset],
        "training": {
            "seed": trained.config.run.seed,
            "published_outer_steps": as_published.config.outer.outer_steps
            if as_published and not outer.max_minutes
            else None,
            "hours": round(checkpoint.seconds / 3600, 2),
            "command": command,
            "torch": folder.environment()["torch"],
        },
        "results": results,
    }
    file = weights / f"{name}.safetensors"
    save_weights(dataclasses.replace(trained, name=name), file, card)
    print(file, file.stat().st_size, "bytes")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        print("usage: python tools/ship_weights.py RUN NAME COMMAND", file=sys.stderr)
        raise SystemExit(2)
    try:
        main(*sys.argv[1:])
    except TorchReptileError as error:
        raise SystemExit(f"tools/ship_weights.py: {error}") from error
