"""The verdict of an audit on so few questions that no outcome is possible."""

import pytest

from qthink_core.artifacts.conditions import JUDGED, TRAINED
from qthink_core.benchmarks.problems import Problem
from qthink_core.inference.evaluation.evaluate import MODEL
from qthink_core.inference.evaluation.findings import CONTROL, Audit, findings
from qthink_core.inference.evaluation.questions import Questions
from qthink_core.inference.evaluation.verdict_file import Line
