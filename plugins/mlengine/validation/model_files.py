"""Checks the model's files without running it: whether they are complete, and the signature of a SavedModel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlengine.core.errors import ModelError
from mlengine.core.plural import number_of
from mlengine.core.verdict import Check
from mlengine.storage.client import Storage
from mlengine.validation.export import Export, download, resolve
from mlengine.validation.job import FinishedJob
from mlengine.validation.model_kind import find_kind
from mlengine.validation.quality import error_text, size_check
from mlengine.validation.rules import Rules, Scope
from mlengine.validation.signature import check_saved_model


@dataclass
class ModelFiles:
    """The model's files and their checks.

    :param scorer: the trainer's scorer. If there is one, the files may be of any kind.
    :param folder: the folder into which the model is downloaded.
    :ivar export: the model in the bucket; it has no files until :meth:`check` has passed.
    """

    storage: Storage
    job: FinishedJob
    rules: Rules
    scorer: str
    folder: Path
    export: Export = field(default_factory=lambda: Export(""))
    digest: str = ""

    def check(self) -> list[Check]:
        """Download the model, and check that it is complete and not too large."""
        threshold = "complete"
        try:
            known = self.rules.scope is not Scope.FILES and not self.scorer
            export = resolve(self.storage, self.job.job_dir.model, known=known)
            size = size_check(export.size, self.rules.thresholds.size_bytes)
            if size.passed:  # a model that is too large is not downloaded
                self.digest = download(self.storage, export, self.folder)
        except ModelError as error:
            return [Check("files", "broken", threshold, passed=False, message=error_text(error))]
        self.export = export
        kind = "as in the manifest" if export.manifest else "there is no manifest"
        text = f"The model is complete: {number_of(len(export.files), 'file')}; {kind}."
        return [Check("files", len(export.files), threshold, passed=True, message=text), size]

    def check_signature(self) -> list[Check]:
        """Check the signature of a SavedModel. The signatures of other kinds are known only when they are loaded."""
        found = None if self.scorer else find_kind(self.export.files)
        if found is not None and found.kind == "savedmodel":
            return check_saved_model(self.folder / found.path, self.rules.expected)
        if self.rules.scope is Scope.SIGNATURE:
            text = "The model is not a SavedModel, so its signature cannot be read without loading it."
            return [Check.skip("signature", text)]
        return []
