"""Console scripts. The threading backend is chosen before anything else imports oslo.service."""

from oslo_service import backend

backend.init_backend(backend.BackendType.THREADING)
