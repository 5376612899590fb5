"""The models that a gateway has: their names there, and what they can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..routers.base import Router
from ..routers.decision import Model
from ..routers.errors import InputError


def described(router: Router, pool: Sequence[Model] | None) -> list[Model]:
    """The models of the router, as `pool` describes them.

    Raises:
        InputError: pool describes a model that the router does not have.
    """
    if pool is not None and not all(isinstance(model, Model) for model in pool):
        raise InputError(f"pool is {pool!r:.80}; expected models: [Model('gpt-4o-mini', vision=False)]")
    given = {model.name: model for model in pool or ()}
    unknown = sorted(set(given) - set(router.models))
    if unknown:
        raise InputError(f"pool describes {unknown}; expected models among {list(router.models)}")
    return [given.get(model.name, model) for model in router.pool]


def check_gateway_names(router: Router, names: Mapping[str, str]) -> None:
    """Refuse names of models at the gateway that do not fit the router.

    Raises:
        InputError: they do not.
    """
    unknown = set(names) - set(router.models)
    if unknown:
        raise InputError(
            f"models names {sorted(unknown)}, which are not in the pool; expected some of {list(router.models)}"
        )
    if not {router.strong, router.weak} <= set(names):
        raise InputError(f"models names {list(names)}; expected {router.strong!r} and {router.weak!r} among them")
    if len(set(names.values())) != len(names):
        raise InputError(f"models is {dict(names)}; expected a different name for each model")
