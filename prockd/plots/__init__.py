"""Figures of every stage, for notebooks and reports.

A function that draws one picture returns its Axes and takes ``ax=None``, which makes a new figure; one that draws many
panels returns a Figure of its own, unknown to pyplot, which a notebook shows when it ends a cell. Colours are those of
Okabe and Ito with a marker beside each, ``assignments`` are what :meth:`prockd.PrototypeBank.assignments` returns, and
``grid`` (rows, columns of patches) may be left out where it is square.
"""

from prockd.plots._draw import caption as caption
from prockd.plots._draw import style as style
from prockd.plots.effects import plot_class_effects as plot_class_effects
from prockd.plots.effects import plot_prototype_effects as plot_prototype_effects
from prockd.plots.maps import plot_embedding as plot_embedding
from prockd.plots.maps import plot_similarity as plot_similarity
from prockd.plots.maps import plot_teacher_maps as plot_teacher_maps
from prockd.plots.predictions import plot_predictions as plot_predictions
from prockd.plots.prototypes import plot_assignments as plot_assignments
from prockd.plots.prototypes import plot_gallery as plot_gallery
from prockd.plots.prototypes import plot_heatmap as plot_heatmap
from prockd.plots.prototypes import plot_points as plot_points
from prockd.plots.tables import plot_agreement as plot_agreement
from prockd.plots.tables import plot_confusion as plot_confusion
from prockd.plots.tables import plot_part_table as plot_part_table
from prockd.plots.tables import plot_usage as plot_usage
from prockd.plots.training import plot_attention as plot_attention
from prockd.plots.training import plot_class_scores as plot_class_scores
from prockd.plots.training import plot_curves as plot_curves
from prockd.plots.training import plot_scores as plot_scores
