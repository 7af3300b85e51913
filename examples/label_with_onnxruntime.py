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


def lines(picture: Image.Image, side: int, box: tuple[float, float, float, float]) -> Image.Image | None:
    """Dark lines on light paper as black on white, scaled as Omniglot's drawings were; None where there are none."""
    grey = np.asarray(picture.convert("L").resize((105, 105), Image.Resampling.LANCZOS, box))
    darkest, paper = int(grey.min()), int(np.median(grey))
    if paper - darkest < 40:
        return None
    ink = grey < (darkest + paper) / 2
    if picture.size != (105, 105):
        ink = thickened(ink)
    black = Image.fromarray(np.where(ink, 0, 255).astype(np.uint8))
    return black.resize((side, side), Image.Resampling.NEAREST).convert(picture.mode)


def thickened(ink: np.ndarray) -> np.ndarray:
    """Lines wide enough that dropping pixels does not lose them, one pixel more at a time, on either side in turn."""
    for step in range(4):
        framed, first = np.pad(ink, 1), step % 2
        sides = (framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum()
        inside = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
        if 2 * ink.sum() >= 3.6 * max(np.sqrt(float(sides) * float((ink & ~inside).sum())), 1):
            break
        both = framed[first : first + len(ink)] | framed[first + 1 : first + 1 + len(ink)]
        ink = both[:, first : first + ink.shape[1]] | both[:, first + 1 : first + 1 + ink.shape[1]]
    return ink


def pixels(path: str, shape: tuple[int, int, int], scaling: str) -> np.ndarray:
    """The middle of a picture as (1, C, H, W) floats from 0 to 1: as much of it as has the proportions of H and W."""
    channels, height, width = shape
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.has_transparency_data:  # laid on white paper
        colours = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    picture = picture.convert("L" if channels == 1 else "RGB")
    wide = picture.width * height >= picture.height * width
    across = picture.height * width / height if wide else picture.width
    down = picture.height if wide else picture.width * height / width
    left, top = (picture.width - across) / 2, (picture.height - down) / 2
    box = (left, top, left + across, top + down)
    if picture.size != (width, height):
        drawn = lines(picture, width, box) if scaling == "lines" else None
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, box) if drawn is None else drawn
    array = np.asarray(picture, dtype=np.float32) / 255
    return (array[None] if channels == 1 else array.transpose(2, 0, 1))[None]


def main() -> None:
    """Print a label and how sure it is for every picture named."""
    if len(sys.argv) < 3:
        sys.exit("usage: label_with_onnxruntime.py PROGRAM.onnx PICTURE ...")
    program, *pictures = sys.argv[1:]
    session = onnxruntime.InferenceSession(program)
    notes = session.get_modelmeta().custom_metadata_map
    classes, shape = json.loads(notes["classes"]), json.loads(notes["image_shape"])
    for path in pictures:
        probabilities = session.run(None, {"images": pixels(path, shape, notes["scaling"])})[0][0]
        best = int(probabilities.argmax())
        print(f"{path}\t{classes[best]}\t{probabilities[best]:.4f}")


if __name__ == "__main__":
    main()
