"""What a picture shows, by student.onnx: python load_student.py picture.jpg (needs onnxruntime, numpy and pillow)."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from picture import FACTS, read_square, show_boxes, show_points, show_scores


def predict(pixels):
    """Outputs of the graph by name, each of one square (3, S, S) in 0..1."""
    session = onnxruntime.InferenceSession(Path(__file__).with_name("student.onnx"), providers=["CPUExecutionProvider"])
    values = session.run(FACTS["outputs"], {"images": pixels[None]})
    return {name: value[0] for name, value in zip(FACTS["outputs"], values, strict=True)}


def detect(cls_logits, bbox_regression, bbox_ctrness=None, least=0.02):
    """Boxes in the square, from the outputs of a detector at each of its anchors."""
    anchors, deltas = np.load(Path(__file__).with_name("anchors.npy")), bbox_regression
    scores = 1 / (1 + np.exp(-cls_logits))  # (A, C)
    middle, size = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    if bbox_ctrness is not None:  # FCOS predicts how far the four edges are
        scores, most = np.sqrt(scores / (1 + np.exp(-bbox_ctrness))), 0.6
        low, high = middle - deltas[:, :2] * size, middle + deltas[:, 2:] * size
    else:  # RetinaNet moves and scales its anchors
        middle, most = middle + deltas[:, :2] * size, 0.5
        half = size * np.exp(np.minimum(deltas[:, 2:], np.log(1000 / 16))) / 2
        low, high = middle - half, middle + half
    boxes = np.concatenate([low, high], 1).clip(0, FACTS["image_px"])
    areas, picked = (boxes[:, 2:] - boxes[:, :2]).prod(1), []
    for label, column in enumerate(scores.T):
        order = np.argsort(-column)
        order = order[column[order] > least]
        while len(order):  # the best of those that are left, without what overlaps it
            best, order = order[0], order[1:]
            picked.append((best, label))
            low, high = np.maximum(boxes[best, :2], boxes[order, :2]), np.minimum(boxes[best, 2:], boxes[order, 2:])
            shared = (high - low).clip(0).prod(1)
            order = order[shared <= most * (areas[best] + areas[order] - shared)]
    rows, labels = np.array(picked, int).reshape(-1, 2).T
    return {"boxes": boxes[rows], "labels": labels, "scores": scores[rows, labels]}


if __name__ == "__main__":
    square, frame = read_square(sys.argv[1])
    outputs = predict(square)
    plus = {name.removeprefix("augmented_"): v for name, v in outputs.items() if name.startswith("augmented_")}
    outputs = plus or outputs  # z+ where the graph has it
    if FACTS["task"]["kind"] == "KeyPoints":
        show_points(outputs["logits"], frame)
    elif "logits" in outputs:
        show_scores(outputs["logits"])
    else:
        show_boxes(detect(**outputs), frame)
