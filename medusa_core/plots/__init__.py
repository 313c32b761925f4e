"""Data in, plotly figure out: no widgets, no model. One file a subject; the palette is shared."""

from medusa_core.plots.masks import fig_mask, fig_unrolled

__all__ = ["fig_mask", "fig_unrolled"]
