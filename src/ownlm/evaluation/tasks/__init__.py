"""How well a model does a task: predictions, one a row, → figures with their intervals, beside simple baselines.

`measure` is the way in; `predictions` says what a prediction is.
"""

from ownlm.evaluation.tasks.measuring import measure, require
from ownlm.evaluation.tasks.result import TaskResult, paired_bootstrap

__all__ = ["TaskResult", "measure", "paired_bootstrap", "require"]
