"""What reports tell of prototypes: every measure beside its controls, and the best prototype of each part."""

import numpy as np

from prockd.evaluation.galleries import part_names_of
from prockd.evaluation.measures import part_report
from prockd.evaluation.part_table import PartReport
from prockd.prototypes.bank import PrototypeBank
from prockd.runs.html import Section
from prockd.runs.world import World

MEASURED, CHANGED = 300, 64
"""Images that prototypes are measured on, and of them those that the teacher sees cropped, shifted, mirrored, noisy."""


def measure_prototypes(world: World, bank: PrototypeBank, name: str) -> PartReport:
    """Every measure of the prototypes on images of a set, at most 300; a note where they cannot be measured."""
    features = world.embedded(name, bank)
    some = np.linspace(0, len(features) - 1, min(MEASURED, len(features))).astype(int)
    names, teacher = part_names_of(features.images), world.teacher
    try:
        return part_report(bank, features.select(some), names, teacher=teacher, num_changed=CHANGED)
    except ValueError as error:
        return PartReport(notes=(str(error),))


def measure_sections(report: PartReport, where: str) -> list[Section]:
    """What was measured of the prototypes ``where``, each number beside what knows no parts."""
    text = (
        f"Measured on {where}. Read each number beside its controls: place in the image knows where in the frame a "
        "patch is and nothing of what it shows, raw pixels are k-means on the colours of patches, shuffled are the "
        "same prototypes in another order."
    )
    missing = "".join(f"\n\n{note[0].upper()}{note[1:]}." for note in report.notes)
    sections = [Section("Do prototypes agree with parts?", text + missing, table=report.rows)]
    if report.part_rows:
        top = report.parts["prototypes"].top
        text = f"Of each part the prototype that shows it best: the share of its {top} strongest patches, one an image,"
        sections.append(Section("Is there a tail?", f"{text} that lie on the part.", table=report.part_rows))
    return sections
