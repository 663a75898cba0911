"""prockd: Prototype-guided Cross-task Knowledge Distillation, to run, to see and to teach.

Data flows one way: images -> teacher -> features -> prototypes -> augmentation -> student -> report.
"""

from importlib.metadata import PackageNotFoundError, version

from prockd import tasks as tasks
from prockd._types import IGNORE as IGNORE
from prockd._types import UNLABELLED as UNLABELLED
from prockd._types import ImageDataset as ImageDataset
from prockd._types import Sample as Sample
from prockd.config import AugmentConfig as AugmentConfig
from prockd.config import DiscoverConfig as DiscoverConfig
from prockd.config import DistillConfig as DistillConfig
from prockd.config import best as best
from prockd.config import paper as paper
from prockd.datasets import Arrays as Arrays
from prockd.datasets import ImageFolder as ImageFolder
from prockd.datasets import PackedImages as PackedImages
from prockd.datasets import check_data as check_data
from prockd.datasets import open_data as open_data
from prockd.datasets import pack as pack
from prockd.discovery import discover as discover
from prockd.distill import History as History
from prockd.distill import distill as distill
from prockd.effects import PrototypeEffects as PrototypeEffects
from prockd.effects import prototype_effects as prototype_effects
from prockd.farmyard import Farmyard as Farmyard
from prockd.features import PatchFeatures as PatchFeatures
from prockd.features import extract as extract
from prockd.prototypes import PrototypeBank as PrototypeBank
from prockd.prototypes import nearest_patches as nearest_patches
from prockd.scores import Scores as Scores
from prockd.scores import evaluate as evaluate
from prockd.scores import predict as predict
from prockd.student import Student as Student
from prockd.teacher import Teacher as Teacher

try:
    __version__ = version("prockd")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
