"""The application of MONAI Deploy: load a study, choose its series, apply the bundle, write DICOM results.

The stock operator of MONAI Deploy 4.0.0 takes the loader out of a bundle's preprocessing and feeds it stored values: an
X-ray's window, its polarity and every refusal of the reader are lost. Here the bundle's own reader reads the files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holoscan.conditions import CountCondition
from holoscan.logger import LogLevel, set_log_level
from monai.deploy.core import Application, ConditionType, Fragment, Operator, OperatorSpec
from monai.deploy.core.domain.dicom_series_selection import SelectedSeries, StudySelectedSeries
from monai.deploy.operators.dicom_data_loader_operator import DICOMDataLoaderOperator
from monai.deploy.operators.dicom_series_selector_operator import DICOMSeriesSelectorOperator
from pydicom import Dataset

from .inference import Bundle
from .series import choose_series, rule_of
from .study import Settings, make_results

STUDIES, SELECTION = "dicom_study_list", "study_selected_series_list"


@dataclass
class Outcome:
    """What an application leaves behind: the files it wrote, or why there are none."""

    files: list[Path]
    seconds: float = 0.0
    error: Exception | None = None


class SeriesOperator(DICOMSeriesSelectorOperator):
    """Select the one series that the bundle can read, by :func:`.series.choose_series`."""

    def __init__(self, fragment: Fragment, *args: Any, bundle: Bundle, settings: Settings, **kwargs: Any) -> None:
        self.bundle, self.settings = bundle, settings
        super().__init__(fragment, *args, **kwargs)

    def filter(
        self, selection_rules: Any, dicom_study_list: Any, *args: Any, **kwargs: Any
    ) -> list[StudySelectedSeries]:
        """Return the study with its one selected series."""
        every = {
            id(dataset): (study, series, dataset)
            for study in dicom_study_list
            for series in study.get_all_series()
            for dataset in instances_of(series)
        }
        place = str(self.settings.place)
        rule = rule_of(self.bundle.metadata)
        (first, *_) = choose_series((entry[2] for entry in every.values()), rule, place, series=self.settings.series)
        study, series, _ = every[id(first)]
        selection = StudySelectedSeries(study)
        selection.add_selected_series(SelectedSeries(rule.name, series, None))
        return [selection]


class BundleOperator(Operator):
    """Apply a bundle to the files of the selected series, and write what it finds as DICOM."""

    def __init__(
        self, fragment: Fragment, *args: Any, bundle: Bundle, settings: Settings, outcome: Outcome, **kwargs: Any
    ) -> None:
        self.bundle, self.settings, self.outcome = bundle, settings, outcome
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        """Take a selection; give the files to whom it may concern."""
        spec.input(SELECTION)
        spec.output("files").condition(ConditionType.NONE)

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        """Apply the bundle to the first selected series."""
        series = op_input.receive(SELECTION)[0].selected_series[0].series
        rule = rule_of(self.bundle.metadata)
        chosen = choose_series(instances_of(series), rule, str(self.settings.place))
        self.outcome.files, self.outcome.seconds = make_results(self.bundle, chosen, self.settings)
        op_output.emit(self.outcome.files, "files")


class BundleApplication(Application):
    """Apply one bundle to one folder of DICOM files."""

    def __init__(self, bundle: Bundle, settings: Settings, folder: Path, outcome: Outcome) -> None:
        self.bundle, self.settings, self.folder, self.outcome = bundle, settings, folder, outcome
        super().__init__()

    def compose(self) -> None:
        """Connect the operators."""
        shared: dict[str, Any] = {"bundle": self.bundle, "settings": self.settings}
        loader = DICOMDataLoaderOperator(
            self, CountCondition(self, 1), input_folder=self.folder, must_load=False, name="loader"
        )
        selector = SeriesOperator(self, **shared, name="selector")
        operator = BundleOperator(self, **shared, outcome=self.outcome, name="bundle")
        self.add_flow(loader, selector, {(STUDIES, STUDIES)})
        self.add_flow(selector, operator, {(SELECTION, SELECTION)})


def instances_of(series: Any) -> Sequence[Dataset]:
    """Give the datasets of a series as the SDK holds them."""
    return [instance.get_native_sop_instance() for instance in series.get_sop_instances()]


def run_application(bundle: Bundle, settings: Settings, folder: Path) -> tuple[list[Path], float]:
    """Run the application once.

    Args:
        bundle: the bundle.
        settings: what a person asks for; its place is what messages name.
        folder: of the DICOM files of one series, each with a preamble.

    Returns:
        the files that it wrote, and the seconds that the bundle's evaluator ran.

    Raises:
        ValueError: what an operator raised.
    """
    if "HOLOSCAN_LOG_LEVEL" not in os.environ:
        set_log_level(LogLevel.OFF)  # an operator's error is raised, and said once
    outcome = Outcome([])
    BundleApplication(bundle, settings, folder, outcome).run()
    return outcome.files, outcome.seconds
