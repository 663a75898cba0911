"""Pictures as the squares of training, and words for what a student predicts; needs numpy and pillow alone."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

FACTS = json.loads(Path(__file__).with_name("student.json").read_text(encoding="utf-8"))
_TURNS = (None, None, 0, 3, 1, 5, 4, 6, 2)  # of EXIF's orientation: numbers of PIL.Image.Transpose


def read_picture(path):
    """A picture as in training: upright, transparency laid on white, 16 and 32 bits scaled by their range."""
    picture = Image.open(path)
    turn = picture.getexif().get(0x0112, 1) if FACTS["exif"] else 1
    if turn in range(2, 9):
        picture = picture.transpose(Image.Transpose(_TURNS[turn]))
    if picture.mode.startswith("I"):
        levels = np.asarray(picture)
        white = FACTS["white"] or (65535 if levels.max() <= 65535 else 2**31 - 1)
        return Image.fromarray(np.rint(levels.clip(0, white) * (255 / white)).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")


def read_square(path):
    """A picture as (3, S, S) in 0..1, and x0, y0, x1, y1 of this square in pixels of the picture."""
    picture = read_picture(path)
    W, H = picture.size
    edge = {"crop": min(W, H), "pad": max(W, H)}.get(FACTS["fit"])  # else "stretch"
    x0, y0 = (0, 0) if edge is None else ((W - edge) // 2, (H - edge) // 2)
    frame = (x0, y0, x0 + (edge or W), y0 + (edge or H))
    square = Image.new("RGB", (frame[2] - x0, frame[3] - y0), (128, 128, 128))
    square.paste(picture, (-x0, -y0))
    pixels = np.asarray(square.resize((FACTS["image_px"],) * 2, Image.Resampling.BICUBIC), np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) / 255), frame


def show_scores(logits):
    """Print the best classes: their probabilities, or of (C, S, S) scores the share of the square that each covers."""
    if logits.ndim == 3:
        shares = np.bincount(logits.argmax(0).ravel(), minlength=len(logits)) / logits[0].size
    elif FACTS["task"]["multi_label"]:
        shares = 1 / (1 + np.exp(-logits))
    else:
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for label in np.argsort(-shares)[:10]:
        print(f"{shares[label]:.3f}  {FACTS['classes'][label]}")


def show_points(logits, frame):
    """Print x, y of each joint in pixels of the picture, and how sure it is, from heat-maps (J, h, w)."""
    (x0, y0, x1, y1), (J, h, w) = frame, logits.shape
    heat = np.exp(logits - logits.max((1, 2), keepdims=True))
    heat /= heat.sum((1, 2), keepdims=True)
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)))
    mass = sum(padded[:, r : r + h, c : c + w] for r in range(3) for c in range(3))  # of 3 x 3 patches
    for j in range(J):
        row, column = np.unravel_index(mass[j].argmax(), (h, w))
        near = np.zeros((h, w))
        rows, columns = slice(max(0, row - 2), row + 3), slice(max(0, column - 2), column + 3)
        near[rows, columns] = heat[j, rows, columns] / heat[j, rows, columns].sum()
        x, y = (near.sum(0) @ (np.arange(w) + 0.5) / w, near.sum(1) @ (np.arange(h) + 0.5) / h)
        place = [round(float(x0 + x * (x1 - x0)), 1), round(float(y0 + y * (y1 - y0)), 1)]
        print(f"{mass[j].max():.3f}  {FACTS['classes'][j]}  {place}")


def show_boxes(detections, frame):
    """Print the best ten ``boxes`` of the square with their ``labels`` and ``scores``, in pixels of the picture."""
    (x0, y0, x1, y1), side = frame, FACTS["image_px"]
    size = (x0 + x1, y0 + y1) * 2  # of the picture, since the square lies in its middle
    boxes, labels, scores = (np.asarray(detections[name]) for name in ("boxes", "labels", "scores"))
    moved = (boxes / side * (x1 - x0, y1 - y0, x1 - x0, y1 - y0) + (x0, y0, x0, y0)).clip(0, size)
    for m in np.argsort(-scores)[:10]:
        print(f"{scores[m]:.3f}  {FACTS['classes'][labels[m]]}  {np.round(moved[m], 1).tolist()}")
