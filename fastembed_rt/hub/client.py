"""One repository of the Hugging Face hub: its files by name, and one line that says why one cannot be had.

Tokens, caches, endpoints and proxies stay huggingface_hub's business (HF_TOKEN, HF_HOME, HF_ENDPOINT, ...);
it is imported when a repository is asked for something, not before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any

from ..errors import FastembedRtError, InvalidInputError, MissingDependencyError, ModelNotFoundError
from ..records import record
from ..system.paths import expanded

OUT_OF_ORDER = (429, 500, 502, 503, 504)  # answers that say nothing about what was asked for


@record(frozen=True)
class Repository:
    """A hub repository and how the caller wants it reached."""

    name: str
    revision: str | None
    token: str | bool | None = field(repr=False)
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool
    repo_type: str = "model"  # or dataset
    writing: bool = False  # whether it is to be written to

    def __post_init__(self) -> None:
        """Raise InvalidInputError for a token that no header can hold; the error of the HTTP client would show it."""
        if isinstance(self.token, str) and not (self.token.isascii() and self.token.isprintable()):
            raise InvalidInputError("the token holds a line end or another letter that no token has; copy it again")

    def fetch(self, file: str, commit: str | None = None) -> Path | None:
        """Local path of a file, downloaded unless cached; None when the repository has no such file.

        Raises:
            InvalidInputError: the hub's cache would be in a home directory that is not there.
            ModelNotFoundError: it cannot be had.
        """
        hub = huggingface_hub()
        self._check_cache()
        where: dict[str, Any] = {
            "revision": commit or self.revision,
            "cache_dir": self._cache_dir,
            "repo_type": self.repo_type,
        }
        with self.explained(file):
            try:
                local = self.local_files_only
                return Path(hub.hf_hub_download(self.name, file, token=self.token, local_files_only=local, **where))
            except hub.errors.LocalEntryNotFoundError:
                # Offline, "not cached" and "not in the repository" differ only if the cache remembers it.
                if hub.try_to_load_from_cache(self.name, file, **where) is hub._CACHED_NO_EXIST:
                    return None
                if file not in self._cached_listing(where, default=[file]):
                    return None
                raise
            except hub.errors.EntryNotFoundError:
                return None

    def listing(self, snapshot: Path) -> list[str]:
        """Files of the repository at the snapshot's commit; without a connection, those of the snapshot."""
        hub = huggingface_hub()
        with self.explained("the list of files"):
            try:
                if not self.local_files_only:
                    return list(hub.HfApi().list_repo_files(self.name, revision=snapshot.name, token=self.token))
            except hub.errors.HfHubHTTPError:
                raise
            except _connection_errors():
                pass  # as huggingface_hub does for single files: what is cached serves
        return [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]

    def head(self) -> tuple[str, list[str]] | None:
        """The commit that the revision is now, and its files; None where the hub may not or cannot be asked."""
        if self.local_files_only:
            return None
        hub = huggingface_hub()
        with self.explained("its commit"):
            try:
                found = hub.HfApi().model_info(
                    self.name, revision=self.revision, token=self.token, timeout=hub.constants.HF_HUB_ETAG_TIMEOUT
                )
            except hub.errors.HfHubHTTPError as error:
                if error.response.status_code not in OUT_OF_ORDER:
                    raise
                return None
            except hub.errors.LocalTokenNotFoundError:
                raise
            except _connection_errors():
                return None
        return str(found.sha), [str(file.rfilename) for file in found.siblings or ()]

    def has(self, file: str, commit: str) -> bool | None:
        """Whether a commit has a small file, which is fetched then; None where only the cache can be asked, in vain."""
        try:
            return self.fetch(file, commit) is not None
        except ModelNotFoundError as error:
            if isinstance(error.__cause__, huggingface_hub().errors.LocalEntryNotFoundError):
                return None
            raise

    def cached_head(self) -> tuple[str, float] | None:
        """The commit that the revision was when the cache was last told, and when (seconds since 1970)."""
        folder = huggingface_hub().file_download.repo_folder_name(repo_id=self.name, repo_type=self.repo_type)
        note = Path(self._cache, folder, "refs", self.revision or "main")
        try:
            return note.read_text(encoding="utf-8").strip(), note.stat().st_mtime
        except (OSError, ValueError):
            return None

    def _check_cache(self) -> None:
        """Raise InvalidInputError where the cache is below ~ and there is no home directory, as in some containers."""
        if str(expanded(self._cache)).startswith("~"):
            raise InvalidInputError(
                f"there is no home directory for the hub's cache, {self._cache}: neither HOME nor the system's list of "
                "users names one; set HF_HOME to a directory that can be written"
            )

    @property
    def _cache_dir(self) -> Path | None:
        return None if self.cache_dir is None else expanded(self.cache_dir)

    @property
    def _cache(self) -> str:
        return str(self._cache_dir or huggingface_hub().constants.HF_HUB_CACHE)

    def _cached_listing(self, where: dict[str, Any], default: list[str]) -> list[str]:
        """Files of the repository as a complete download left their list in the cache (huggingface_hub 2)."""
        hub = huggingface_hub()
        if not hasattr(hub, "get_cached_repo_tree"):
            return default
        try:
            return [file.path for file in hub.get_cached_repo_tree(self.name, **where)]
        except hub.errors.CachedRepoTreeNotFoundError:
            return default

    @contextmanager
    def explained(self, wanted: str) -> Iterator[None]:
        """Turn huggingface_hub's failures into one line that says what to do."""
        hub = huggingface_hub()
        endpoint = hub.constants.ENDPOINT
        who = f"hub repository '{self.name}'"
        try:
            yield
        except hub.errors.HFValidationError as error:
            raise ModelNotFoundError(f"{self.name!r} is no possible name of one (org/name); check the name") from error
        except hub.errors.LocalTokenNotFoundError as error:
            raise InvalidInputError(
                "token=True, but no token is stored here; set HF_TOKEN, run: hf auth login, or give the token"
            ) from error
        except hub.errors.GatedRepoError as error:
            raise ModelNotFoundError(
                f"{who} is gated: ask for access at {endpoint}/{self.name}, then give a token that has it "
                "(HF_TOKEN or token=)"
            ) from error
        except hub.errors.RevisionNotFoundError as error:
            raise ModelNotFoundError(
                f"{who} has no revision '{self.revision or 'main'}'; "
                f"branches, tags and commits are listed at {endpoint}/{self.name}/tree/main"
            ) from error
        except hub.errors.RepositoryNotFoundError as error:
            token = self.token if isinstance(self.token, str) else self.token is not False and hub.get_token()
            access = "the token in use has no access" if token else "set HF_TOKEN, run: hf auth login, or give token="
            raise ModelNotFoundError(
                f"'{self.name}' is not to be seen at {endpoint}; check the spelling, and if it is private: {access}"
            ) from error
        except hub.errors.LocalEntryNotFoundError as error:
            raise self._not_cached(wanted, error) from error
        except hub.errors.HfHubHTTPError as error:
            raise self._refused(wanted, error) from error
        except _connection_errors() as error:
            raise self._not_reached(wanted, error) from error
        except (RuntimeError, ValueError) as error:  # of large files that were not sent, and of a card
            if not self.writing or isinstance(error, FastembedRtError):
                raise
            cause = error.__cause__
            if isinstance(cause, hub.errors.HfHubHTTPError):
                raise self._refused(wanted, cause) from error
            if isinstance(cause, _connection_errors()):
                raise self._not_reached(wanted, cause) from error
            raise InvalidInputError(f"{wanted} of {who} failed: {_one_line(error)}") from error

    def _not_reached(self, wanted: str, error: BaseException) -> ModelNotFoundError:
        """The error for a connection that there is not, or a disk that is full."""
        who, endpoint = f"hub repository '{self.name}'", huggingface_hub().constants.ENDPOINT
        if self.writing:
            return ModelNotFoundError(
                f"{wanted} of {who} to {endpoint} failed ({_one_line(error)}); check the connection, HF_ENDPOINT and "
                "the proxy, and push again: large files that have arrived are not sent twice"
            )
        return ModelNotFoundError(
            f"cannot get {wanted} of {who} from {endpoint} ({_one_line(error)}); "
            f"check the connection, and that {self._cache} can be written"
        )

    def _not_cached(self, wanted: str, error: Exception) -> ModelNotFoundError:
        """The error for a file that is not cached and was not to be had."""
        hub = huggingface_hub()
        missing = f"{wanted} of '{self.name}'{f' at {self.revision}' if self.revision else ''} is not in the cache"
        offline = self.local_files_only or hub.constants.HF_HUB_OFFLINE
        if not offline and isinstance(error.__cause__, hub.errors.HfHubHTTPError):
            return self._refused(wanted, error.__cause__)
        why = (
            f"{self._cache}, and local_files_only or HF_HUB_OFFLINE=1 forbids asking the hub; "
            "allow it once to fill the cache"
            if offline
            else f"and {hub.constants.ENDPOINT} cannot be reached ({_one_line(error.__cause__ or error)}); "
            "check the connection, HF_ENDPOINT and the proxy"
        )
        return ModelNotFoundError(
            f"{missing} {why}, or fetch elsewhere with: hf download {self.name} --local-dir DIRECTORY "
            "and give that directory"
        )

    def _refused(self, wanted: str, error: Any) -> ModelNotFoundError:
        """The error for an answer that is neither the file nor a clear "no such thing"."""
        hub = huggingface_hub()
        status = error.response.status_code
        verb = "write" if self.writing else "read"
        advice = {
            401: "the token was refused; check HF_TOKEN, the token given, or run: hf auth login",
            403: f"the token may not {verb} it; give one with {verb} access",
            429: "too many requests; wait, or log in for a higher limit",
            409: "something else is changing it; try again",
            412: "something else has changed it meanwhile; try again",
        }.get(status, "try again later" if status in OUT_OF_ORDER else "")
        said = " ".join((getattr(error, "server_message", None) or "").split())[:300]
        facts = f"{hub.constants.ENDPOINT} answered {status} for {wanted} of '{self.name}'"
        return ModelNotFoundError(f"{facts}{f' ({said})' if said else ''}{f'; {advice}' if advice else ''}")


def huggingface_hub() -> Any:
    """The huggingface_hub package with what this module uses of it."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.file_download
    except ImportError as error:
        raise MissingDependencyError(
            f"huggingface_hub cannot be imported ({_one_line(error)}); "
            "pip install huggingface-hub, or give a local directory instead of a hub name"
        ) from error
    return huggingface_hub


def _connection_errors() -> tuple[type[BaseException], ...]:
    """What a failed connection or a full disk raises.

    huggingface_hub passes on the errors of its HTTP client and has changed that client (requests, httpx,
    httpx2); its HfHubHTTPError derives from whatever the current one calls an HTTP error.
    """
    return (huggingface_hub().errors.HfHubHTTPError.__bases__[0], OSError)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
