"""Checkpoints on the Hugging Face Hub: ``hf://user/model``, ``hf://user/model@revision``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import UserError, WriteError
from .model_zoo import OFFLINE

PREFIX = "hf://"
FILE = "model.safetensors"
"""Weights of a repository, unless its address names another file: ``hf://user/model/other.pth``."""


def split_address(address: str) -> tuple[str, str, str | None]:
    """``hf://user/model/FILE@REVISION`` → repository, file, revision.

    Raises:
        UserError: it names no repository.
    """
    rest, _, revision = address.removeprefix(PREFIX).partition("@")
    parts = rest.strip("/").split("/")
    if len(parts) < 2 or not all(parts):
        raise UserError(f"'{address}' is not of the form hf://user/model")
    return "/".join(parts[:2]), "/".join(parts[2:]) or FILE, revision or None


def fetch_from_hub(address: str) -> Path:
    """A file of the Hub, from its cache or its server.

    Raises:
        UserError: there is no such repository, file or revision, or the network is forbidden and
            the file is not in the cache.
        WriteError: the network failed.
    """
    hub = require_hub()
    repository, file, revision = split_address(address)
    offline = bool(os.environ.get(OFFLINE))
    try:
        return Path(
            hub.hf_hub_download(repository, file, revision=revision, local_files_only=offline)
        )
    except hub.errors.LocalEntryNotFoundError as error:
        if offline:
            raise UserError(
                f"'{address}' is not in the cache of the Hub, and the network is forbidden"
            ) from error
        raise WriteError(f"'{address}' cannot be fetched: {_first_line(error)}") from error
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError,
            hub.errors.EntryNotFoundError) as error:  # fmt: skip
        kinds = {"Repository": "repository", "Revision": "revision"}
        kind = next((v for k, v in kinds.items() if type(error).__name__.startswith(k)), "file")
        raise UserError(
            f"'{address}': the Hub has no such {kind}, or it is private (huggingface-cli login)"
        ) from error
    except hub.errors.HFValidationError as error:
        raise UserError(f"'{address}' is no address of the Hub: {_first_line(error)}") from error
    except hub.errors.HfHubHTTPError as error:
        raise WriteError(f"'{address}' cannot be fetched: {_first_line(error)}") from error
    except Exception as error:
        if not _is_network(error):
            raise
        raise WriteError(f"'{address}' cannot be fetched: {_first_line(error)}") from error


def push_folder(folder: Path, repository: str, private: bool, message: str) -> str:
    """Upload a folder into a repository, which is made if need be; returns its address.

    Raises:
        UserError: the name is wrong, or nobody is logged in.
        WriteError: the server refused or did not answer.
    """
    hub = require_hub()
    api = hub.HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        return str(made)
    except hub.errors.HFValidationError as error:
        raise UserError(
            f"'{repository}' is no name of a repository: {_first_line(error)}"
        ) from error
    except hub.errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            raise UserError(
                f"the Hub does not let you write to '{repository}': huggingface-cli login, or set "
                "HF_TOKEN"
            ) from error
        raise WriteError(f"could not write to '{repository}': {_first_line(error)}") from error
    except Exception as error:
        if not _is_network(error):
            raise
        raise WriteError(f"could not reach the Hub: {_first_line(error)}") from error


def _is_network(error: Exception) -> bool:
    """Whether the HTTP library raised it; which one that is depends on the Hub's version."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests")


def require_hub() -> Any:
    """The package, or a sentence on how to install it."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise UserError(
            'hf:// addresses need huggingface_hub: pip install "higherhrnet[hub]"'
        ) from error
    return huggingface_hub


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
