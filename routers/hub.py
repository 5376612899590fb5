"""Bundles on the Hugging Face Hub, with the methods of huggingface_hub's `ModelHubMixin`."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from .blended import BlendedRouter
from .bundle import MAX_BYTES, read_bundle, save_bundle
from .errors import BundleMissingError
from .learned import LearnedRouter
from .loading import load


class HubRouter(LearnedRouter, ModelHubMixin, library_name="routelearn", tags=["llm-routing"]):
    """A `LearnedRouter` with `from_pretrained`, `save_pretrained` and `push_to_hub`.

    A repository on the Hub holds the files of the bundle (README.md is the model card) and a config.json that
    names the library. The Hub counts downloads by config.json; `load` does not read it.

    Example:
        >>> from routelearn.routers import HubRouter
        >>> router = HubRouter.from_pretrained("router/")  # a folder here; "org/router" for a repository
        >>> router.save_pretrained("copy/")
        >>> HubRouter.from_pretrained("copy/").strong
        'sim-max'
    """

    # Set, so that the mixin does not make a config of the constructor's arguments.
    _hub_mixin_config = {"library_name": "routelearn"}  # noqa: RUF012 - the mixin's own attribute
    _folder: Path
    _linked: bool

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> HubRouter:
        """Load a router from a folder, or from a repository by way of the Hub's cache. It needs no config.json.

        Args:
            pretrained_model_name_or_path: a folder, or the id of a repository.
            revision: a branch, tag or commit; None: the main branch.
            cache_dir: a folder to use instead of the Hub's cache.
            force_download: download the files even if the cache has them.
            local_files_only: use the cache and no network.
            token: an access token for private repositories; True: the stored token.

        Raises:
            BundleMissingError: there is no such folder, and no such repository can be reached.
            BundleError: the folder or repository holds no bundle that can be trusted; see `load`.
        """
        folder = Path(pretrained_model_name_or_path)
        linked = not folder.is_dir()
        if linked:  # files of the cache are links; only the Hub's client makes links there
            try:
                snapshot = snapshot_download(
                    str(pretrained_model_name_or_path),
                    allow_patterns=list(MAX_BYTES),
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
                raise BundleMissingError(
                    f"{folder} is not a folder, and no repository of that name can be loaded ({error})"
                ) from error
            folder = Path(snapshot)
        loaded = load(folder, follow_links=linked)
        if isinstance(loaded, BlendedRouter):
            router: HubRouter = _BlendedHubRouter(loaded.manifest, loaded._session, loaded._companion)
        else:
            router = cls(loaded.manifest, loaded._session, loaded._records)
        router._folder, router._linked = folder, linked
        return router

    def _save_pretrained(self, save_directory: Path) -> None:
        """Copy the bundle, verified once more.

        Raises:
            BundleError: the folder that this router was loaded from has changed since then.
        """
        manifest, contents = read_bundle(self._folder, follow_links=self._linked)
        if manifest.files != self.manifest.files:
            raise BundleMissingError(f"{self._folder} no longer holds the bundle that was loaded from it")
        save_bundle(save_directory, manifest, contents)


class _BlendedHubRouter(HubRouter, BlendedRouter):
    """A `HubRouter` of a bundle with a companion."""
