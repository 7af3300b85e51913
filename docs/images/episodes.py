"""Draw docs/images/episodes.png: ``python docs/images/episodes.py glyphs-5way``, or with a run folder on glyphs."""

import io
import sys
from pathlib import Path

from PIL import Image

from torchreptile.experiments.reports import draw_episode, sample_episodes
from torchreptile.training.evaluation.evaluate import split_store
from torchreptile.training.weights import load_weights

GAP = 24  # pixels between episodes

weights = load_weights(sys.argv[1])
shown = sample_episodes(weights, split_store(weights.config, "test"))[:3]
pictures = [Image.open(io.BytesIO(draw_episode(each.episode, each.predicted))) for each in shown]
width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
sheet = Image.new("RGB", (width, pictures[0].height), "white")
for number, picture in enumerate(pictures):
    sheet.paste(picture, (number * (picture.width + GAP), 0))
sheet.quantize(32).save(Path(__file__).with_suffix(".png"))
