"""The contract between the core and a backend: see `ismcore.backend.contract`."""

from ismcore.backend.contract import (
    API,
    DTYPES,
    OLDEST_API,
    Backend,
    BackendInfo,
    GenericSession,
    Session,
    SharedSetting,
    as_dtype,
)

__all__ = ["API", "DTYPES", "OLDEST_API", "Backend", "BackendInfo", "GenericSession", "Session", "SharedSetting", "as_dtype"]
