"""What a picture shows, by a detector of torchvision: python load_student.py picture.jpg"""

import sys
from collections import OrderedDict

import torch
from picture import FACTS, read_square, show_boxes
from plain_student import PlainStudent
from torch import nn
from torchvision.models.detection.transform import GeneralizedRCNNTransform


class Maps(nn.Sequential):
    """The backbone that torchvision's detector reads: a picture's pyramid, by the names of its levels."""

    def forward(self, images):
        plain, pyramid = self
        return OrderedDict((str(i), level) for i, level in enumerate(pyramid(plain.features(images))))


def load():
    """A detector: a list of pictures (3, H, W) in 0..1 -> boxes in their own pixels, labels, scores.

    It stretches pictures to a square; ``read_square`` fits them as in training. Faster R-CNN's labels begin at 1.
    """
    plain, S = PlainStudent(), FACTS["image_px"]
    head, plain.head = plain.head, nn.Identity()
    detector = head.detector
    detector.backbone = Maps(plain, head.pyramid)  # the student's own normalisation is inside
    detector.transform = GeneralizedRCNNTransform(S, S, [0.0] * 3, [1.0] * 3, size_divisible=1, fixed_size=(S, S))
    return detector.eval()


if __name__ == "__main__":
    pixels, frame = read_square(sys.argv[1])
    with torch.no_grad():
        detections = load()([torch.from_numpy(pixels)])[0]
    detections["labels"] -= 1 if FACTS["task"]["detector"] == "fasterrcnn" else 0
    show_boxes(detections, frame)
