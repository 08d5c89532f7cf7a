"""How Icechunk reaches the files at a URL: settings and credentials from the environment.

The variables are those that obstore reads.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import icechunk

from l2view.errors import AuthorizationError, IngestError, StoreError
from l2view.text import strip_credentials

# The schemes of URLs by who serves them.
S3, GCS, HTTP = frozenset({"s3", "s3a"}), frozenset({"gs", "gcs"}), frozenset({"http", "https"})
AZURE = frozenset({"az", "azure", "abfs", "abfss"})


def flag(name: str) -> bool:
    """Return whether a variable of the environment is set to true."""
    return os.environ.get(name, "").casefold() in ("1", "true", "yes", "on")


def _s3_settings() -> dict[str, Any]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT")
    return {
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
        "endpoint_url": endpoint,
        "allow_http": flag("AWS_ALLOW_HTTP"),
        "force_path_style": endpoint is not None,
    }


def icechunk_storage(url: str) -> icechunk.Storage | None:
    """Return Icechunk's storage for `url`, None for a scheme that it doesn't know."""
    split = urlsplit(url)
    prefix = split.path.strip("/")
    if split.scheme in S3 | GCS:
        variable = "AWS_SKIP_SIGNATURE" if split.scheme in S3 else "GOOGLE_SKIP_SIGNATURE"
        access: Any = {"anonymous": True} if flag(variable) else {"from_env": True}
        if split.scheme in GCS:
            return icechunk.gcs_storage(bucket=split.netloc, prefix=prefix, **access)
        settings = _s3_settings() | access
        return icechunk.s3_storage(bucket=split.netloc, prefix=prefix, **settings)
    if split.scheme in AZURE:
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        if account is None:
            raise StoreError(f"set AZURE_STORAGE_ACCOUNT_NAME to open {strip_credentials(url)}")
        return icechunk.azure_storage(
            account=account, container=split.netloc, prefix=prefix, from_env=True
        )
    return icechunk.http_storage(url) if split.scheme in HTTP else None


def container_store(prefix: str) -> Any:
    """Return the store of a virtual chunk container; an `IngestError` for another scheme."""
    split = urlsplit(prefix)
    if split.scheme == "file":
        return icechunk.local_filesystem_store(split.path)
    if split.scheme in S3:
        return icechunk.s3_store(**_s3_settings(), anonymous=flag("AWS_SKIP_SIGNATURE"))
    if split.scheme in GCS | HTTP:
        return icechunk.gcs_store() if split.scheme in GCS else icechunk.http_store()
    raise IngestError(f"Icechunk can't refer to files at {prefix}")


def container_credentials(prefix: str, credentials: Any) -> Any:
    """Return credentials of Icechunk's for a container.

    They are such already, or ``"env"`` for those of the environment, ``"anonymous"`` or None.
    """
    scheme = urlsplit(prefix).scheme
    if credentials not in (None, "anonymous", "env"):
        return credentials
    if scheme == "file":
        return icechunk.credentials.LocalFileSystemAccess
    if scheme in HTTP:
        return icechunk.credentials.HttpAccess
    makers: dict[str, Any] = {
        "s3": icechunk.s3_credentials,
        **dict.fromkeys(GCS, icechunk.gcs_credentials),
        "az": icechunk.azure_credentials,
    }
    if scheme not in makers:
        raise AuthorizationError(f"authorize= needs credentials of icechunk's for {prefix}")
    access: Any = {"from_env": True} if credentials == "env" else {"anonymous": True}
    return makers[scheme](**access)
