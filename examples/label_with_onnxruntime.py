"""Label pictures with an exported classifier, by onnxruntime and Pillow alone: nothing of torchreptile or torch.

reptile export signs.safetensors --to signs.onnx
python examples/label_with_onnxruntime.py signs.onnx picture.png ...
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def pixels(path: str, channels: int, side: int) -> np.ndarray:
    """The central square of a picture as (1, C, side, side) floats from 0 to 1."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.has_transparency_data:  # laid on white paper
        colours = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    picture = picture.convert("L" if channels == 1 else "RGB")
    square = min(picture.size)
    left, top = (picture.width - square) / 2, (picture.height - square) / 2
    box = (left, top, left + square, top + square)
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.LANCZOS, box)
    array = np.asarray(picture, dtype=np.float32) / 255
    return (array[None] if channels == 1 else array.transpose(2, 0, 1))[None]


def main() -> None:
    """Print a label and how sure it is for every picture named."""
    if len(sys.argv) < 3:
        sys.exit("usage: label_with_onnxruntime.py PROGRAM.onnx PICTURE ...")
    program, *pictures = sys.argv[1:]
    session = onnxruntime.InferenceSession(program)
    notes = session.get_modelmeta().custom_metadata_map
    classes, (channels, side, _) = json.loads(notes["classes"]), json.loads(notes["image_shape"])
    for path in pictures:
        probabilities = session.run(None, {"images": pixels(path, channels, side)})[0][0]
        best = int(probabilities.argmax())
        print(f"{path}\t{classes[best]}\t{probabilities[best]:.4f}")


if __name__ == "__main__":
    main()
