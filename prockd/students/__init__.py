"""The student, and the plain student without prockd."""

from prockd.students.export import export_student as export_student
from prockd.students.student import Student as Student
from prockd.tasks.task import ExportError as ExportError
