"""How nbgrader makes the student's page of a solved one; `make notebooks` and `nbgrader generate_assignment` share it.

Copy it into the folder of your course, and the pages into its ``source/prockd/``.
"""

from nbconvert.preprocessors import TagRemovePreprocessor
from nbgrader import preprocessors as p
from traitlets.config import get_config

c = get_config()
c.TagRemovePreprocessor.remove_cell_tags = {"instructor"}  # teaching notes
c.GenerateAssignment.preprocessors = [
    TagRemovePreprocessor, p.LockCells, p.ClearSolutions, p.ClearOutput, p.CheckCellMetadata, p.ComputeChecksums,
    p.SaveCells, p.ClearHiddenTests, p.ComputeChecksums, p.CheckCellMetadata,
]  # fmt: skip
c.ExecutePreprocessor.timeout, c.ExecutePreprocessor.startup_timeout = 900, 300  # laptops are slow
