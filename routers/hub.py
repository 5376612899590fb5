"""Bundles on the Hugging Face Hub, by the conventions of huggingface_hub's `ModelHubMixin`.

router = HubRouter.from_pretrained("org/router")     # or a local folder
router.save_pretrained("copy/")
router.push_to_hub("org/router", private=True)
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from .bundle import MAX_BYTES, read_bundle, save_bundle
from .errors import BundleMissingError
from .learned import LearnedRouter, load


class HubRouter(LearnedRouter, ModelHubMixin, library_name="routelearn", tags=["llm-routing"]):
    """A `LearnedRouter` with `from_pretrained`, `save_pretrained` and `push_to_hub`.

    What goes to the Hub is the bundle itself: its four files, whose README.md is the model card, and a config.json
    that only names the library (the Hub counts downloads by it; `load` does not read it).
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
        """Load a router from a folder, or from a repository through the Hub's cache; no config.json is needed.

        Args:
            pretrained_model_name_or_path: a folder, or the id of a repository.
            revision: branch, tag or commit.
            cache_dir: in the place of the Hub's cache.
            force_download: even if it is in the cache.
            local_files_only: from the cache alone.
            token: for private repositories; True: the stored one.

        Raises:
            BundleMissingError: neither a folder nor a repository that can be had.
            BundleError: it holds no bundle that can be trusted; see `load`.
        """
        folder = Path(pretrained_model_name_or_path)
        linked = not folder.is_dir()
        if linked:  # the cache links to its files; nobody else can make links there
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
                raise BundleMissingError(f"no bundle at {folder}: no folder, and no repository ({error})") from error
            folder = Path(snapshot)
        loaded = load(folder, follow_links=linked)
        router = cls(loaded.manifest, loaded._session)
        router._folder, router._linked = folder, linked
        return router

    def _save_pretrained(self, save_directory: Path) -> None:
        """Copy the bundle, verified once more.

        Raises:
            BundleError: the folder that this router came from has changed since.
        """
        manifest, contents = read_bundle(self._folder, follow_links=self._linked)
        if manifest.files != self.manifest.files:
            raise BundleMissingError(f"{self._folder} no longer holds the bundle that was loaded from it")
        save_bundle(save_directory, manifest, contents)
