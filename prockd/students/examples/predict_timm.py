"""What a picture shows, with timm and torch alone: python load_student.py picture.jpg"""

import sys
from pathlib import Path

import torch
from picture import FACTS, read_square, show_boxes, show_points, show_scores
from plain_student import PlainStudent


def predict(student, images):
    """What is read of images (B, 3, S, S) in 0..1: z, or z+ where part maps lie beside this file."""
    features = student.features(images)
    if not Path(__file__).with_name("part_maps.safetensors").exists():
        return student.head(features)
    import part_maps

    if part_maps.GIVES_CLASSES:
        return torch.from_numpy(part_maps.class_scores(features.numpy()))
    return student.head(torch.from_numpy(part_maps.added(features.numpy())))


if __name__ == "__main__":
    student, (pixels, frame) = PlainStudent(), read_square(sys.argv[1])
    with torch.no_grad():
        prediction = predict(student, torch.from_numpy(pixels)[None])
    if hasattr(student.head, "detect"):
        show_boxes(student.head.detect(prediction)[0], frame)
    elif FACTS["task"]["kind"] == "KeyPoints":
        show_points(prediction[0].numpy(), frame)
    else:
        show_scores(prediction[0].numpy())
