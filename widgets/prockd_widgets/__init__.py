"""Widgets for the notebooks; every one of them also works from Python alone, without a browser."""

from prockd._extras import needs_extra

with needs_extra("lab", "A widget"):
    from prockd_widgets.explorer import PrototypeExplorer as PrototypeExplorer
    from prockd_widgets.lens import PatchLens as PatchLens
    from prockd_widgets.panel import DistillationPanel as DistillationPanel
    from prockd_widgets.settings import PRESETS as PRESETS
    from prockd_widgets.settings import Settings as Settings
    from prockd_widgets.switches import PrototypeSwitches as PrototypeSwitches
    from prockd_widgets.tries import Try as Try
