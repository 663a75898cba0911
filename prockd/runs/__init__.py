"""From settings to a run: one assembly, its folder and its report."""

from prockd.runs.recipes import RECIPES as RECIPES
from prockd.runs.recipes import Recipe as Recipe
from prockd.runs.recipes import task_settings as task_settings
from prockd.runs.result import Run as Run
from prockd.runs.run import run_experiment as run_experiment
from prockd.runs.world import World as World
from prockd.runs.world import make_student as make_student
from prockd.runs.world import open_world as open_world
from prockd.runs.world import teach as teach
from prockd.runs.world import train_student as train_student
