"""From settings to a run: one assembly, its folder and its report."""

from prockd.runs.recipes import RECIPES as RECIPES
from prockd.runs.recipes import Recipe as Recipe
from prockd.runs.recipes import task_settings as task_settings
from prockd.runs.run import run_experiment as run_experiment
from prockd.runs.students import Run as Run
from prockd.runs.students import make_student as make_student
from prockd.runs.students import teach as teach
from prockd.runs.students import train_student as train_student
from prockd.runs.world import World as World
from prockd.runs.world import open_world as open_world
