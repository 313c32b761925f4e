"""Data in, plotly figure out: no widgets, no model. One file a subject; the palette is shared."""

from medusa_core.plots.masks import fig_mask, fig_unrolled
from medusa_core.plots.trees import fig_expected_tokens, fig_tree

__all__ = ["fig_expected_tokens", "fig_mask", "fig_tree", "fig_unrolled"]
