"""Everything that decides a run: knobs with ranges, the sections of an experiment, and TOML files of them."""

from prockd.settings.experiment import DataConfig as DataConfig
from prockd.settings.experiment import ExperimentConfig as ExperimentConfig
from prockd.settings.experiment import ExportConfig as ExportConfig
from prockd.settings.experiment import StudentConfig as StudentConfig
from prockd.settings.experiment import TaskConfig as TaskConfig
from prockd.settings.experiment import TeacherConfig as TeacherConfig
from prockd.settings.knobs import ConfigError as ConfigError
from prockd.settings.knobs import Knobs as Knobs
from prockd.settings.method import DiscoverConfig as DiscoverConfig
from prockd.settings.method import DistillConfig as DistillConfig
from prockd.settings.method import FeatureAugmentationConfig as FeatureAugmentationConfig
from prockd.settings.method import best as best
from prockd.settings.method import paper as paper
from prockd.settings.toml import read_config as read_config
from prockd.settings.toml import set_values as set_values
from prockd.settings.toml import write_config as write_config
