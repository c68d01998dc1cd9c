"""HTTP to one OpenStack service as the service user of one configuration section.

Base of the clients in this package: logs in lazily, pages, and lets out no exception but ours.
"""

import threading
from collections.abc import Iterator, Mapping

import openstack.connection
from keystoneauth1 import exceptions as ks_exc
from keystoneauth1 import loading as ks_loading
from openstack import exceptions as sdk_exc

from nova_batch_migrate import exception, version
from nova_batch_migrate.clients import errors


class ServiceClient:
    """One service of the cloud; safe to share between threads."""

    group = ""  # section of the configuration
    service_type = ""

    def __init__(self, conf):
        self._conf = conf
        self._lock = threading.Lock()
        self._connection = None

    def log_in(self) -> None:
        """Get a token, or raise NovaPermanentError where the credentials are refused."""
        operation = f"log in the service user of [{self.group}]"
        try:
            self._proxy().session.get_token()
        except ks_exc.Unauthorized as error:
            raise exception.NovaPermanentError(
                operation=operation,
                reason=f"{error}. Check username, password and project of [{self.group}]"
            ) from error
        except (ks_exc.ClientException, sdk_exc.SDKException) as error:
            raise errors.from_exception(operation, error) from error

    def _proxy(self):
        """Return the SDK's proxy; raises keystoneauth's and the SDK's errors."""
        with self._lock:
            if self._connection is None:
                auth = ks_loading.load_auth_from_conf_options(self._conf, self.group)
                if auth is None:
                    raise ks_exc.MissingAuthPlugin(f"auth_type is not set in [{self.group}]")
                session = ks_loading.load_session_from_conf_options(
                    self._conf, self.group, auth=auth, app_name="nova-batch-migrate",
                    app_version=version.version_string())
                self._connection = openstack.connection.Connection(
                    session=session, oslo_conf=self._conf, service_types=[self.service_type],
                    strict_proxies=True)
            return getattr(self._connection, self.service_type)

    def _microversion(self, newest: tuple[int, int] | None) -> str:
        """Return the microversion to ask for, ``newest`` at most where that is given."""
        raise NotImplementedError

    def _request(self, operation: str, method: str, path: str, *,
                 newest: tuple[int, int] | None = None, none_if_missing: bool = False, **kwargs):
        """Return the answer, or raise the NovaError that the table of errors says.

        ``operation`` completes the sentence "Nova could not ...". Nothing but GET is repeated
        after a broken connection: the first try may have been carried out. With
        ``none_if_missing`` a 404 in the service's own words is None; a proxy's 404 never is.
        """
        if method != "GET":
            kwargs["connect_retries"] = 0
        try:
            response = self._proxy().request(
                path, method, microversion=self._microversion(newest), raise_exc=False, **kwargs)
        except (ks_exc.ClientException, sdk_exc.SDKException) as error:
            raise errors.from_exception(operation, error) from error
        if none_if_missing and errors.is_missing(response):
            return None
        if response.status_code >= 400:
            raise errors.from_response(operation, response)
        return response

    def _get(self, operation: str, path: str, params: Mapping | None = None, **kwargs):
        """Return the decoded body of an answer, or None as :meth:`_request` does."""
        response = self._request(operation, "GET", path, params=dict(params or {}), **kwargs)
        try:
            return None if response is None else response.json()
        except ValueError as error:
            raise exception.NovaTransientError(
                operation=operation,
                reason=f"the answer is no JSON ({errors.message_of(response)[:200]})") from error

    def _paged(self, operation: str, path: str, key: str, params: Mapping,
               marker: str, **kwargs) -> Iterator[dict]:
        """Yield every item of a list; ``marker`` is the field that names the last one seen."""
        params = dict(params)
        while True:
            body = self._get(operation, path, params, **kwargs)
            yield from body[key]
            links = body.get(f"{key}_links", ())
            if not body[key] or not any(link["rel"] == "next" for link in links):
                return
            params["marker"] = body[key][-1][marker]
