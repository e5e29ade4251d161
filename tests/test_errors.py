"""The one rule of how programs end after a mistake of the user's."""

import pytest

from hdetr_d2.checkpoint import CheckpointError
from hdetr_d2.data import DatasetError
from hdetr_d2.engine import ConfigError, ResumeError
from hdetr_d2.errors import USER_ERROR_EXIT_CODE, UserError, exit_on_user_error
from hdetr_d2.evaluation import GroundTruthError, ResultsError
from hdetr_d2.evaluation.longtail.runs import ReportError
from hdetr_d2.model_zoo.trained import MissingWeightsError


@pytest.mark.parametrize(
    "kind",
    [
        CheckpointError,
        ConfigError,
        DatasetError,
        GroundTruthError,
        MissingWeightsError,
        ReportError,
        ResultsError,
        ResumeError,
        UserError,
    ],
)
def test_a_mistake_of_the_users_is_one_line_and_exit_code_2(
    kind: type[UserError], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_, exit_on_user_error("program"):
        raise kind("train.json: annotation 3\n  has width -3.0;\nfix the file")
    assert exit_.value.code == USER_ERROR_EXIT_CODE == 2
    assert capsys.readouterr().err == "program: error: train.json: annotation 3 has width -3.0; fix the file\n"


def test_a_fault_of_the_programs_own_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exit_on_user_error("program"):
        raise ZeroDivisionError
