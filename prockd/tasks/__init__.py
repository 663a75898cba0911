"""Tasks: what the student predicts, in a label space of its own."""

from prockd.tasks.classification import Classification as Classification
