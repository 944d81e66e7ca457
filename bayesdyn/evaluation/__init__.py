"""How well a model knows what it does not know: metrics, null bands, open-loop scores, `compare`, and protocols beside it.

`disentanglement_rows` asks whether the two parts of a variance are what they claim, `active_learning_rows` what it is worth to ask
by them, `decision_rows` what plans are worth that were made with a model. Each returns rows of the one long table.
"""

from bayesdyn.evaluation.active_learning import ActiveLearning, active_learning_rows
from bayesdyn.evaluation.compare import CellProgress, compare
from bayesdyn.evaluation.comparison import Comparison, Failure
from bayesdyn.evaluation.decisions import DecisionTask, decision_anchor, decision_rows
from bayesdyn.evaluation.disentanglement import Disentanglement, disentanglement_rows, verdicts
from bayesdyn.evaluation.drone import quarter_drone_comparison
from bayesdyn.evaluation.pairs import PairedInterval, paired_interval
from bayesdyn.evaluation.table import Row
from bayesdyn.evaluation.truth import known_dynamics, plant_dynamics, simulated_decisions
from bayesdyn.evaluation.workers import InProcess, Processes, Ray, Workers

__all__ = [
    "ActiveLearning",
    "CellProgress",
    "Comparison",
    "DecisionTask",
    "Disentanglement",
    "Failure",
    "InProcess",
    "PairedInterval",
    "Processes",
    "Ray",
    "Row",
    "Workers",
    "active_learning_rows",
    "compare",
    "decision_anchor",
    "decision_rows",
    "disentanglement_rows",
    "known_dynamics",
    "paired_interval",
    "plant_dynamics",
    "quarter_drone_comparison",
    "simulated_decisions",
    "verdicts",
]
