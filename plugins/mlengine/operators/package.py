"""Operator that packages the trainer's source, and uploads it to the bucket."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlengine.core.arguments import items
from mlengine.core.plural import number_of
from mlengine.core.xcoms import PackageXCom
from mlengine.operators._base import MlengineOperator
from mlengine.operators.lineage import tasks as lineage

if TYPE_CHECKING:
    from airflow.sdk import Context

    from mlengine.packaging.publish import PackagedTrainer

_SHOWN = 20


class PackageTrainerOperator(MlengineOperator):
    """Package a trainer. An unchanged trainer is neither built nor uploaded again.

    The operator installs nothing: the backend installs the packages where the trainer runs.

    :param source: a package dir (``__init__.py``), a project dir (``pyproject.toml`` or ``setup.py``), an sdist or a
        wheel (a path or a ``gs://`` URI), or a list of these, the trainer first. A relative path is relative to the
        DAG's file. A package dir in a project that includes it is built by that project.
    :param bucket: ``gs://NAME[/prefix]``; the setting ``[mlengine] bucket`` if empty.
    :param module: the module that the job will run, such as ``trainer.task``; the package must have it.
    :param requirements: the requirements of a package dir, as in a requirements file: ``numpy>=2``. A project declares
        its own. A package dir with requirements is built without the project around it.

    :returns: :class:`~mlengine.core.xcoms.PackageXCom`: the URIs and the digest of the archives.
    :raises PackageError: the trainer cannot be packaged; the message names the file, or includes the build's output.
    """

    template_fields: Sequence[str] = (*MlengineOperator.template_fields, "source", "bucket", "module", "requirements")
    template_fields_renderers = {"requirements": "json"}  # noqa: RUF012
    ui_color = "#e6f4ea"

    def __init__(
        self,
        *,
        source: str | Path | Sequence[str | Path],
        bucket: str | None = None,
        module: str | None = None,
        requirements: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.bucket = bucket
        self.module = module
        self.requirements = requirements

    def execute(self, context: Context) -> PackageXCom:  # noqa: ARG002
        from mlengine.packaging.publish import package_trainer

        sources = [self.source] if isinstance(self.source, str | Path) else list(self.source)
        packaged = package_trainer(
            [self.relative_to_dag(source) for source in sources],
            storage=self.access.storage(),
            staging=self.access.bucket(self.bucket),
            module=self.given("module"),
            requirements=items("requirements", self.given("requirements") or ()),
        )
        self._log_package(packaged)
        result = packaged.to_json()
        self._lineage = partial(lineage.packaged, result)
        return result

    def _log_package(self, packaged: PackagedTrainer) -> None:
        action = "unchanged, already in the bucket" if packaged.reused else "packaged"
        self.log.info(
            "%s %s: %s; %s, %s KiB, digest %s",
            packaged.name,
            packaged.version,
            action,
            number_of(packaged.files, "file"),
            f"{-(-packaged.size // 1024):,}",
            packaged.digest,
        )
        for uri in packaged.uris:
            self.log.info("  %s", uri)
        for note in packaged.notes:
            self.log.info("  note: %s", note)
        for left in packaged.left_out[:_SHOWN]:
            self.log.info("  excluded: %s (%s)", left.path, left.reason)
        if len(packaged.left_out) > _SHOWN:
            self.log.info("  excluded: %s more", len(packaged.left_out) - _SHOWN)
