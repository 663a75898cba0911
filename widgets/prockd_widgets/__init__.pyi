# Every public name and where it is defined: type checkers and editors read it, and so does __init__.py to load lazily.
from .explorer import PrototypeExplorer as PrototypeExplorer
from .lens import PatchLens as PatchLens
from .panel import DistillationPanel as DistillationPanel
from .settings import PRESETS as PRESETS
from .settings import Settings as Settings
from .switches import PrototypeSwitches as PrototypeSwitches
from .tries import Try as Try
