"""A model, data and an Optax transformation become a stream of states.

`fit` is the loop, under ``pmap`` or ``shard_map``; an experiment walks through its
states in plain sight: ``for state in fit(model, data, tx, config): probe(state)``.
`fit_text` is the same on a text, the network's place in which goes from state to state.
"""

from lrscape.training.activations import (
    make_largest_activations as make_largest_activations,
)
from lrscape.training.config import Config as Config
from lrscape.training.config import TextConfig as TextConfig
from lrscape.training.evaluate import make_evaluate as make_evaluate
from lrscape.training.fit import NonFiniteLossError as NonFiniteLossError
from lrscape.training.fit import fit as fit
from lrscape.training.language import fit_text as fit_text
from lrscape.training.language import initial_text_state as initial_text_state
from lrscape.training.language import make_evaluate_text as make_evaluate_text
from lrscape.training.optimizers import create_optimizer as create_optimizer
from lrscape.training.replicas import fit_seeds as fit_seeds
from lrscape.training.replicas import initial_states as initial_states
from lrscape.training.replicas import stacked as stacked
from lrscape.training.replicas import unstacked as unstacked
from lrscape.training.state import TextState as TextState
from lrscape.training.state import TrainState as TrainState
from lrscape.training.state import averages as averages
from lrscape.training.state import initial_state as initial_state
from lrscape.training.state import learning_rate as learning_rate

__all__ = [
    "Config",
    "NonFiniteLossError",
    "TextConfig",
    "TextState",
    "TrainState",
    "averages",
    "create_optimizer",
    "fit",
    "fit_seeds",
    "fit_text",
    "initial_state",
    "initial_states",
    "initial_text_state",
    "learning_rate",
    "make_evaluate",
    "make_evaluate_text",
    "make_largest_activations",
    "stacked",
    "unstacked",
]
