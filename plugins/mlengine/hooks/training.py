"""The connection type ``mlengine``: Google's credentials, and where training jobs run, in one form.

Any connection of type ``google_cloud_platform`` does for operators, too; this type adds fields for what mlengine reads
besides (region, endpoint), and a test that asks the training service. It holds no logic of its own about credentials:
the Google provider reads them, from the same fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from mlengine.core.errors import MlengineError
from mlengine.hooks.form import BEHAVIOUR, CONNECTION_TYPE

if TYPE_CHECKING:
    from mlengine.backends import TrainingBackend

# No job has it: a lookup by it shows that the service answers, and lists nothing.
_NO_KEY = "connection-test"


class TrainingHook(BaseHook):
    """Vertex AI as a connection describes it.

    :param gcp_conn_id: a connection of type ``mlengine`` or ``google_cloud_platform``.
    :param impersonation_chain: service account to impersonate, or a chain of them.
    """

    conn_name_attr = "gcp_conn_id"
    default_conn_name = "google_cloud_default"
    conn_type = CONNECTION_TYPE
    hook_name = "mlengine (training jobs)"

    def __init__(
        self,
        gcp_conn_id: str = default_conn_name,
        impersonation_chain: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.gcp_conn_id = gcp_conn_id
        self.impersonation_chain = impersonation_chain

    def get_conn(self) -> TrainingBackend:
        """The backend with this connection's credentials. Asks nobody yet."""
        from mlengine.connections import CloudAccess

        return CloudAccess(self.gcp_conn_id, self.impersonation_chain).backend("vertex")

    def test_connection(self) -> tuple[bool, str]:
        """What the button in the form does: one question to the service. Never raises for what a person can mend."""
        try:
            self.get_conn().find(_NO_KEY)
        except MlengineError as error:
            return False, str(error)
        return True, "The training service answers, and lets these credentials list jobs."

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        return {name.replace("-", "_"): value for name, value in BEHAVIOUR.items()}
