"""The hook of the connection type ``mlengine``, which contains Google credentials and the location of training jobs.

Operators also accept a connection of type ``google_cloud_platform``. The type ``mlengine`` adds fields for mlengine's
settings, such as the region, and a connection test that calls the training service. The Google provider reads the
credentials, from the same fields in both types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from mlengine.core.errors import MlengineError
from mlengine.hooks.form import BEHAVIOUR, CONNECTION_TYPE

if TYPE_CHECKING:
    from mlengine.backends import TrainingBackend

# No job has this key. The connection test searches for it to check that the service responds.
_NO_KEY = "connection-test"


class TrainingHook(BaseHook):
    """Connects to Vertex AI with the credentials and settings of an Airflow connection.

    :param gcp_conn_id: the id of a connection of type ``mlengine`` or ``google_cloud_platform``.
    :param impersonation_chain: the service account to impersonate, or a chain of them.
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
        """The Vertex AI backend with this connection's credentials. This makes no request."""
        from mlengine.connections import CloudAccess

        return CloudAccess(self.gcp_conn_id, self.impersonation_chain).backend("vertex")

    def test_connection(self) -> tuple[bool, str]:
        """Test the connection with one request to the training service.

        :returns: whether the request succeeded, and a message.
        """
        try:
            self.get_conn().find(_NO_KEY)
        except MlengineError as error:
            return False, str(error)
        return True, "The training service responds, and these credentials may list jobs."

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The form's behaviour, as Airflow requires it: all of Airflow's standard fields are hidden."""
        return {name.replace("-", "_"): value for name, value in BEHAVIOUR.items()}
