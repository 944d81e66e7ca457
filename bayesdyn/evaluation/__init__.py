"""How well a model knows what it does not know: metrics, null bands, open-loop scores and `compare`."""

from bayesdyn.evaluation.compare import CellProgress, compare
from bayesdyn.evaluation.comparison import Comparison, Failure
from bayesdyn.evaluation.drone import quarter_drone_comparison
from bayesdyn.evaluation.table import Row

__all__ = ["CellProgress", "Comparison", "Failure", "Row", "compare", "quarter_drone_comparison"]
