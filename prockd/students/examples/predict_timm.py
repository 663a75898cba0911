"""What a picture shows, with timm and torch alone: python load_student.py picture.jpg"""

import sys

import torch
from picture import FACTS, read_square, show_boxes, show_points, show_scores
from plain_student import PlainStudent

if __name__ == "__main__":
    student, (pixels, frame) = PlainStudent(), read_square(sys.argv[1])
    with torch.no_grad():
        prediction = student(torch.from_numpy(pixels)[None])
    if hasattr(student.head, "detect"):
        show_boxes(student.head.detect(prediction)[0], frame)
    elif FACTS["task"]["kind"] == "KeyPoints":
        show_points(prediction[0].numpy(), frame)
    else:
        show_scores(prediction[0].numpy())
