"""Data in, plotly figure out: no widgets, no model. One file a subject; the palette is shared."""

from medusa_core.plots.bench import fig_speedup, fig_step_time, fig_tokens_per_step
from medusa_core.plots.claims import (
    fig_claim_data,
    fig_claim_depth,
    fig_claim_epsilon,
    fig_claim_steps,
    fig_claim_trees,
)
from medusa_core.plots.compare import (
    fig_heads_accuracy,
    fig_heads_categories,
    fig_heads_cost,
    fig_heads_speed,
    fig_heads_tokens,
)
from medusa_core.plots.joint import fig_gain_and_cost, fig_joint, fig_recipes
from medusa_core.plots.masks import fig_mask, fig_unrolled
from medusa_core.plots.peers import fig_peers
from medusa_core.plots.search import (
    fig_balance,
    fig_choice,
    fig_context_rates,
    fig_predicted,
    fig_step_cost,
    fig_step_profile,
)
from medusa_core.plots.tokens import fig_coverage, fig_lengths, html_labels
from medusa_core.plots.training import fig_accuracy, fig_head_accuracy, fig_losses
from medusa_core.plots.trees import fig_expected_tokens, fig_tree
from medusa_core.plots.weights import fig_bytes, fig_rounding

__all__ = [
    "fig_accuracy",
    "fig_balance",
    "fig_bytes",
    "fig_choice",
    "fig_claim_data",
    "fig_claim_depth",
    "fig_claim_epsilon",
    "fig_claim_steps",
    "fig_claim_trees",
    "fig_context_rates",
    "fig_coverage",
    "fig_expected_tokens",
    "fig_gain_and_cost",
    "fig_head_accuracy",
    "fig_heads_accuracy",
    "fig_heads_categories",
    "fig_heads_cost",
    "fig_heads_speed",
    "fig_heads_tokens",
    "fig_joint",
    "fig_lengths",
    "fig_losses",
    "fig_mask",
    "fig_peers",
    "fig_predicted",
    "fig_recipes",
    "fig_rounding",
    "fig_speedup",
    "fig_step_cost",
    "fig_step_profile",
    "fig_step_time",
    "fig_tokens_per_step",
    "fig_tree",
    "fig_unrolled",
    "html_labels",
]
