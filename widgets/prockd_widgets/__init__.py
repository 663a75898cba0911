"""Widgets for the notebooks; every one of them also works from Python alone, without a browser."""

from prockd_widgets.panel import DistillationPanel as DistillationPanel
from prockd_widgets.settings import PRESETS as PRESETS
from prockd_widgets.settings import Settings as Settings
from prockd_widgets.settings import Try as Try
