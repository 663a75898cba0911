"""How nbgrader makes the student's page of a solved one; `make notebooks` and `nbgrader generate_assignment` share it.

Copy it into the folder of your course, and the pages into its ``source/prockd/``.
"""

from nbgrader import preprocessors as p


class WithoutNotes(p.NbGraderPreprocessor):  # type: ignore[misc]
    """Cells with the tag ``instructor`` are the lecturer's: nbgrader's list of steps is fixed, the exporter's is not."""

    def preprocess(self, nb, resources):  # type: ignore[no-untyped-def]
        """The page without them."""
        nb.cells = [cell for cell in nb.cells if "instructor" not in cell.metadata.get("tags", [])]
        return nb, resources


c = get_config()  # whoever reads this file brings it; an imported one would be another
c.Exporter.preprocessors = [WithoutNotes]
c.ExecutePreprocessor.timeout, c.ExecutePreprocessor.startup_timeout = 900, 300  # laptops are slow
