"""The frozen teacher, and what it says of every patch of a data set."""

from prockd.teachers.compact import CompactFeatures as CompactFeatures
from prockd.teachers.compact import extract_compact as extract_compact
from prockd.teachers.embedded import EmbeddedFeatures as EmbeddedFeatures
from prockd.teachers.features import PatchFeatures as PatchFeatures
from prockd.teachers.features import extract as extract
from prockd.teachers.presets import TEACHER_PRESETS as TEACHER_PRESETS
from prockd.teachers.stored import MissingShardsError as MissingShardsError
from prockd.teachers.stored import Share as Share
from prockd.teachers.teacher import Teacher as Teacher
from prockd.teachers.weights import WeightsError as WeightsError
