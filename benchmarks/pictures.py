"""Accuracy on Omniglot's original 105 x 105 drawings, scaled as in training or smoothly.

    TORCHREPTILE_DATA=DIR python benchmarks/pictures.py

Labels 5-way 1-shot tasks of test classes with ``omniglot-5way``, inductively, with drawings scaled as
``FewShotClassifier`` does and smoothly. Prints accuracies in percent, and their difference, with 95% CI over episodes.
"""

from __future__ import annotations

import argparse
import io
import zipfile

import numpy as np
import torch
from PIL import Image

from torchreptile import FewShotClassifier
from torchreptile.core.paths import data_dir
from torchreptile.data.loading import load_splits
from torchreptile.data.own_images.decode import Scaling
from torchreptile.inference.image_input import as_images
from torchreptile.training.evaluation.results import Accuracy
from torchreptile.training.weights import load_weights

WEIGHTS, SHAPE, LABELS = "omniglot-5way", (1, 28, 28), ["a", "b", "c", "d", "e"]


def published() -> dict[str, list[Image.Image]]:
    """Return the original drawings of every character, by its name."""
    folder = data_dir()
    if folder is None:
        raise SystemExit("set TORCHREPTILE_DATA to a folder with omniglot/images_background.zip")
    found: dict[str, list[Image.Image]] = {}
    for name in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(folder / "omniglot" / f"{name}.zip") as archive:
            for file in sorted(file for file in archive.namelist() if file.endswith(".png")):
                image = Image.open(io.BytesIO(archive.read(file))).convert("L")
                found.setdefault("/".join(file.split("/")[1:3]), []).append(image)
    return found


def main() -> None:
    """Measure both scalings on the same episodes, and print accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=300)
    args = parser.parse_args()
    drawings, names = published(), load_splits(load_weights(WEIGHTS).config.task).test.class_names
    generator = np.random.default_rng(0)
    scalings: list[Scaling] = ["lines", "lanczos"]
    right: dict[str, list[float]] = {scaling: [] for scaling in scalings}
    for _ in range(args.episodes):
        classes = generator.choice(len(names), len(LABELS), replace=False)
        pairs = [(drawings[names[one]], generator.choice(20, 2, replace=False)) for one in classes]
        support, queries = ([images[chosen[place]] for images, chosen in pairs] for place in (0, 1))
        for scaling in scalings:
            classifier = FewShotClassifier(WEIGHTS).fit(as_images(support, SHAPE, scaling), LABELS)
            right[scaling].append(classifier.score(as_images(queries, SHAPE, scaling), LABELS))
    lines, smooth = (torch.tensor(right[scaling], dtype=torch.float64) for scaling in scalings)
    for name, values in (("as in training", lines), ("smoothly", smooth), ("difference", lines - smooth)):
        accuracy = Accuracy.over(values)
        print(f"{name:16}{100 * accuracy.mean:6.2f} ± {100 * accuracy.ci95:.2f}")


if __name__ == "__main__":
    main()
