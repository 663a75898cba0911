"""prockd: Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach.

Data flows one way: images -> teacher -> features -> prototypes -> augmentation -> student -> report.
"""

from importlib.metadata import PackageNotFoundError, version

from prockd import tasks as tasks
from prockd._types import IGNORE as IGNORE
from prockd._types import UNLABELLED as UNLABELLED
from prockd._types import ImageDataset as ImageDataset
from prockd._types import Sample as Sample
from prockd.datasets import Arrays as Arrays
from prockd.datasets import ImageFolder as ImageFolder
from prockd.datasets import PackedImages as PackedImages
from prockd.datasets import check_data as check_data
from prockd.datasets import open_data as open_data
from prockd.datasets import pack as pack
from prockd.evaluation.effects import PrototypeEffects as PrototypeEffects
from prockd.evaluation.effects import prototype_effects as prototype_effects
from prockd.evaluation.scores import Scores as Scores
from prockd.evaluation.scores import evaluate as evaluate
from prockd.evaluation.scores import predict as predict
from prockd.farmyard import Farmyard as Farmyard
from prockd.prototypes.bank import PrototypeBank as PrototypeBank
from prockd.prototypes.bank import nearest_patches as nearest_patches
from prockd.prototypes.discovery import discover as discover
from prockd.settings.method import DiscoverConfig as DiscoverConfig
from prockd.settings.method import DistillConfig as DistillConfig
from prockd.settings.method import FeatureAugmentationConfig as FeatureAugmentationConfig
from prockd.settings.method import best as best
from prockd.settings.method import paper as paper
from prockd.students.student import Student as Student
from prockd.teachers.features import PatchFeatures as PatchFeatures
from prockd.teachers.features import extract as extract
from prockd.teachers.teacher import Teacher as Teacher
from prockd.training.loop import History as History
from prockd.training.loop import distill as distill

try:
    __version__ = version("prockd")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
