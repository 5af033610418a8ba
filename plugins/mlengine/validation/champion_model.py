"""The champion in a validation: its model is run on the same rows as the challenger, and their predictions compared."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlengine.champions.history import Champion
from mlengine.core.dataset import Manifest
from mlengine.core.errors import MlengineError, ModelError
from mlengine.core.layout import JobDir
from mlengine.core.plural import first_of
from mlengine.core.versions import version_key
from mlengine.datasets.catalog import read_manifest
from mlengine.storage.client import Storage
from mlengine.validation.comparison import Baseline
from mlengine.validation.export import download, resolve
from mlengine.validation.heldout import Heldout
from mlengine.validation.job import load_job
from mlengine.validation.measured import Measured
from mlengine.validation.metrics.outcomes import Outcomes
from mlengine.validation.outputs import fit
from mlengine.validation.predictions import Predictions, load_predictions
from mlengine.validation.rules import recorded_model
from mlengine.validation.scored_model import ScoredModel
from mlengine.validation.serving_signature import ServingSignature

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChampionModel:
    """The champion's model and predictions.

    The champion is called with its own serving signature and scorer, which may differ from the challenger's.

    :param folder: the folder into which the model is downloaded.
    """

    storage: Storage
    champion: Champion
    folder: Path

    def may_know(self, manifest: Manifest) -> str:
        """The reason why the held-out rows are no valid test for the champion; empty if they are.

        If each dataset version has its own held-out rows, newer versions may have these rows among their training rows.
        """
        version = self.champion.version
        if manifest.heldout_policy != "rolling" or self.champion.dataset.get("name") != manifest.name or not version:
            return ""
        if version_key(version) <= version_key(manifest.version):
            return ""
        return (
            f"The champion {self.champion.job_id} was trained on the newer version {version}, whose training rows may "
            f"include the held-out rows of {manifest.version}."
        )

    def read(self, classes: Sequence[Any]) -> ScoredModel | None:
        """Download the champion's model; ``None`` if it cannot be run.

        :param classes: the classes of the dataset.
        """
        try:
            expected, scorer = self._recorded()
            export = resolve(self.storage, self.champion.model_uri, known=not scorer)
            if export.fingerprint != self.champion.fingerprint:
                log.warning("champion %s cannot be run: its files changed after publication", self.champion.job_id)
                return None
            download(self.storage, export, self.folder)
            return ScoredModel.read(self.folder, expected, scorer=scorer, classes=classes)
        except ModelError as error:
            log.warning("champion %s cannot be run: %s", self.champion.job_id, error.message)
            return None

    def outcomes(
        self, measured: Measured, heldout: Heldout, predictions: Predictions | None
    ) -> tuple[Outcomes | None, str]:
        """The champion's predictions, measured now or stored for the same rows; or the reason why there are none.

        :param predictions: the challenger's predictions.
        """
        name = self.champion.job_id
        reason = f"The champion {name} could not be run on these rows, and has no stored predictions for them."
        classes = self._classes() if heldout.classes else ()
        if classes and not _same_classes(classes, heldout.classes):
            reason = (
                f"The champion {name} predicts the classes {first_of(classes)}, and the dataset has"
                f" {first_of(heldout.classes)}."
            )
        elif measured.baseline_outputs is not None:
            expected, _ = self._recorded()
            try:
                fitted = fit(measured.baseline_outputs, heldout.task, heldout.classes, expected.activation)
                return Outcomes.of(Predictions.of(heldout, fitted)), ""
            except ModelError as error:
                reason = f"The champion {name} has other outputs: {error.message}."
        elif measured.baseline.get("error"):
            log.warning("champion %s could not be run: %s", name, measured.baseline["error"])
        kept = load_predictions(self.storage, JobDir(self.champion.job_dir))
        if kept is not None and predictions is not None and kept.same_rows(predictions):
            return Outcomes.of(kept), ""
        return None, f"{reason} Roll back to a champion that can be run, or publish with force."

    def baseline(self, outcomes: Outcomes | None, unavailable: str) -> Baseline:
        """The data about the champion with which the challenger is compared.

        :param unavailable: the reason why there are no outcomes.
        """
        return Baseline(self.champion.job_id, self.champion.size, outcomes, unavailable)

    def _classes(self) -> tuple[Any, ...]:
        """The classes of the dataset version on which the champion was trained; empty if they are not known."""
        try:
            return tuple(read_manifest(self.storage, str(self.champion.dataset["uri"])).schema.classes or ())
        except KeyError:
            return ()
        except MlengineError as error:
            if error.retryable:
                raise
            return ()

    def _recorded(self) -> tuple[ServingSignature, str]:
        return recorded_model(self.storage, load_job(self.storage, self.champion.job_dir))


def _same_classes(champion: Sequence[Any], dataset: Sequence[Any]) -> bool:
    """Whether the champion's outputs are those of the dataset's classes. 1, True and "1" may be the same class."""
    return tuple(champion) == tuple(dataset) or list(map(str, champion)) == list(map(str, dataset))
