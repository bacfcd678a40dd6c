"""Results drawn, with matplotlib to be looked at and with Plotly to be turned.

Every function takes what was measured and returns a figure that belongs to no window.
"""

from lrscape.figures.curvature import density_figure as density_figure
from lrscape.figures.curvature import layer_shares_figure as layer_shares_figure
from lrscape.figures.curvature import sharpness_figure as sharpness_figure
from lrscape.figures.curves import line_figure as line_figure
from lrscape.figures.curves import perturbation_figure as perturbation_figure
from lrscape.figures.curves import walk_figure as walk_figure
from lrscape.figures.interactive import interactive_curves as interactive_curves
from lrscape.figures.interactive import interactive_line as interactive_line
from lrscape.figures.surfaces import contour_figure as contour_figure
from lrscape.figures.surfaces import interactive_surface as interactive_surface
from lrscape.figures.surfaces import surface_figure as surface_figure
from lrscape.figures.training import compared_curves as compared_curves
from lrscape.figures.training import image_sheet as image_sheet
from lrscape.figures.training import learning_curves as learning_curves

__all__ = [
    "compared_curves",
    "contour_figure",
    "density_figure",
    "image_sheet",
    "interactive_curves",
    "interactive_line",
    "interactive_surface",
    "layer_shares_figure",
    "learning_curves",
    "line_figure",
    "perturbation_figure",
    "sharpness_figure",
    "surface_figure",
    "walk_figure",
]
