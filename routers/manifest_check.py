"""Checks the content of router.json field by field: type, range, and finite numbers.

A bundle is signed by whoever made it, so that a fitting hash says nothing about what the fields hold. What passes here
makes no code fail later that reads the manifest.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from .base import LINKS
from .decision import ABILITIES, PRICES, TOKEN_LIMITS
from .errors import InputError
from .query import turns

#: The most tokens and the most characters that `truncation` may keep of a query.
MAX_TOKENS, MAX_CHARACTERS = 1 << 17, 1 << 22
#: The most models, thresholds and golden queries.
MAX_MODELS, MAX_THRESHOLDS, MAX_GOLDEN = 10_000, 10_000, 1_000
#: The most items that describe the traffic of a general router.
MAX_ITEMS = 10_000
#: The most dimensions, and directions, of its background.
MAX_DIRECTIONS = 4_096
#: The most token ids of all golden queries together, and the most characters: every load runs them.
MAX_GOLDEN_IDS, MAX_GOLDEN_CHARACTERS = 1 << 17, 1 << 20
#: The most JSON objects and lists, and the most values.
MAX_OBJECTS, MAX_VALUES = 500_000, 2_000_000
#: The deepest nesting of JSON objects and lists.
MAX_JSON_DEPTH = 50
#: No threshold, bound or number of a report is larger.
_LARGEST = 1e12
_MOST_WINDOW = 1 << 40

_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_fields(content: Mapping[str, Any], *, verifier: bool) -> None:
    """Refuse a manifest with a field that cannot be used.

    Args:
        content: the fields of router.json.
        verifier: the bundle is a verifier's, for which some fields mean something else.

    Raises:
        ValueError: a field is refused; the message names it, what it holds and what is expected.
    """
    _check_json(content)
    for name in ("kind", "strong", "weak"):
        _text(name, content[name])
    if content["link"] not in LINKS:
        raise _wrong("link", content["link"], f"one of {sorted(LINKS)}")
    _check_pool(content, verifier)
    _check_truncation("truncation", content["truncation"])
    for name in ("calibration", "training"):
        _object(name, content[name])
    _number("threshold", content["threshold"], -_LARGEST, _LARGEST)
    _check_table(content["threshold_table"], verifier)
    if content["novelty_bound"] is not None:
        _number("novelty_bound", content["novelty_bound"], -_LARGEST, _LARGEST)
    _number("golden_tolerance", content["golden_tolerance"], 0, 1)
    _check_golden(content["golden"], 1 if verifier else len(content["pool"]), verifier)
    for name, digest in _object("files", content["files"]).items():
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise _wrong(f"files[{name!r}]", digest, "a sha256 of 64 hexadecimal digits")
    _check_guarantee(content["guarantee"])
    _check_reference(content["reference"])
    _check_general(content["general"], content["kind"])
    _check_companion(content, verifier)


def check_files(files: Mapping[str, Any], needed: set[str], possible: set[str]) -> None:
    """Refuse a manifest that lists other files than those it needs and those that it may have (ValueError)."""
    if not needed <= set(files) <= needed | possible:
        raise ValueError(
            f"it lists the files {sorted(files)}; expected a flat folder of {sorted(needed)} and possibly "
            f"{sorted(possible)}"
        )


def _check_json(content: Mapping[str, Any]) -> None:
    """Refuse what cannot be written again: numbers that are not finite, halves of surrogates, endless nesting."""
    level: list[Any] = [content]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            value
            for item in level
            for value in (item.values() if isinstance(item, dict) else item)
            if type(value) is dict or type(value) is list
        ]
        if not level:
            break
    else:
        raise ValueError(f"it nests deeper than {MAX_JSON_DEPTH}; expected at most {MAX_JSON_DEPTH} levels")
    try:
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair; expected text that UTF-8 can write") from None
    except ValueError:
        raise ValueError("it holds NaN or an infinite number; expected finite numbers") from None


def _check_pool(content: Mapping[str, Any], verifier: bool) -> None:
    pool = _list("pool", content["pool"], MAX_MODELS)
    names = []
    for place, model in enumerate(pool):
        where = f"pool[{place}]"
        _keys(where, model, {"name"}, {*PRICES, *TOKEN_LIMITS, *ABILITIES})
        names.append(_text(f"{where}.name", model["name"]))
        given = {field: value for field, value in model.items() if value is not None}
        for field in given.keys() & set(PRICES):
            _number(f"{where}.{field}", given[field], 0, _LARGEST)
        for field in given.keys() & set(TOKEN_LIMITS):
            _whole(f"{where}.{field}", given[field], 1, _MOST_WINDOW)
        for field in given.keys() & set(ABILITIES):
            if not isinstance(given[field], bool):
                raise _wrong(f"{where}.{field}", given[field], "true or false")
    if len(set(names)) != len(names) or (not names and not verifier):
        raise _wrong("pool", names, "one model or more, with distinct names")
    pair = [content["strong"], content["weak"]]
    if not verifier and (pair[0] == pair[1] or not set(pair) <= set(names)):
        raise _wrong("strong, weak", pair, f"two models of the pool {names}")


def _check_truncation(where: str, value: Any) -> None:
    switches = {"special_tokens", "distinct"}
    _keys(where, value, set(), {"max_tokens", "last_tokens", "characters_per_token", *switches})
    most = _whole(f"{where}.max_tokens", value.get("max_tokens", 1), 1, MAX_TOKENS)
    _whole(f"{where}.last_tokens", value.get("last_tokens", 0), 0, most)
    _whole(f"{where}.characters_per_token", value.get("characters_per_token", 1), 1, MAX_CHARACTERS // most)
    for name in switches & set(value):
        if not isinstance(value[name], bool):
            raise _wrong(f"{where}.{name}", value[name], "true or false")


def _check_table(value: Any, verifier: bool) -> None:
    table = _list("threshold_table", value, MAX_THRESHOLDS)
    for place, pair in enumerate(table):
        where = f"threshold_table[{place}]"
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise _wrong(where, pair, "a pair of a share and a threshold")
        _number(f"{where}[0]", pair[0], 0, 1)
        _number(f"{where}[1]", pair[1], -_LARGEST, _LARGEST)
    shares = [share for share, _ in table]
    if shares != sorted(shares) or (verifier and not table):
        raise _wrong("threshold_table", shares, "rising shares" + (", one or more" if verifier else ""))


def _check_golden(value: Any, models: int, verifier: bool) -> None:
    golden = _list("golden", value, MAX_GOLDEN)
    if not golden:
        raise _wrong("golden", value, "at least one golden query")
    for place, item in enumerate(golden):
        where = f"golden[{place}]"
        _keys(where, item, {"query", "ids", "quality"}, set())
        ids, quality = _list(f"{where}.ids", item["ids"], MAX_GOLDEN_IDS), _list(f"{where}.quality", item["quality"])
        for number in ids:
            _whole(f"{where}.ids", number, 0, (1 << 31) - 1)
        for number in quality:
            _number(f"{where}.quality", number, -_LARGEST, _LARGEST)
        if len(quality) != models:
            raise _wrong(f"{where}.quality", quality, f"{models} numbers")
        query = item["query"]
        if verifier:
            _keys(f"{where}.query", query, {"query", "answer"}, set())
            _text(f"{where}.query.answer", query["answer"])
            query = query["query"]
        try:
            turns(query)
        except InputError as error:
            raise ValueError(f"{where}.query: {error}") from error
    if sum(len(item["ids"]) for item in golden) > MAX_GOLDEN_IDS:
        raise ValueError(f"golden has more than {MAX_GOLDEN_IDS:,} token ids; expected at most as many")
    if len(json.dumps([item["query"] for item in golden])) > MAX_GOLDEN_CHARACTERS:
        raise ValueError(f"golden has more than {MAX_GOLDEN_CHARACTERS:,} characters; expected at most as many")


def _check_guarantee(value: Any) -> None:
    if value is None:
        return
    guarantee = _object("guarantee", value)
    for name in ("threshold", "max_quality_loss", "delta"):
        _number(f"guarantee.{name}", guarantee.get(name), -_LARGEST, _LARGEST)
    for name in ("strong", "weak", "unit", "data_fingerprint"):
        _text(f"guarantee.{name}", guarantee.get(name))
    # What people are shown of it; it may be left out.
    for name in {"strong_share", "loss", "bound", "n"} & set(guarantee):
        _number(f"guarantee.{name}", guarantee[name], -_LARGEST, _LARGEST)
    for name in {"method", "date"} & set(guarantee):
        _text(f"guarantee.{name}", guarantee[name])


def _check_reference(value: Any) -> None:
    """Check the form of a reference; `monitoring.Reference.from_dict` checks the distributions when they are used."""
    if value is None:
        return
    reference = _object("reference", value)
    lists = {"score": {"values", "shares"}, "novelty": {"values", "shares"}, "vector": {"mean", "covariance"}}
    for name, parts in lists.items():
        if reference.get(name) is None and name != "score":
            continue
        part = _keys(f"reference.{name}", reference.get(name), {"n", *parts}, set())
        _whole(f"reference.{name}.n", part["n"], 1, int(_LARGEST))
        for numbers in parts:
            rows = _list(f"reference.{name}.{numbers}", part[numbers])
            if numbers == "covariance":
                rows = [number for row in rows for number in _list("reference.vector.covariance", row)]
            _each_number(f"reference.{name}.{numbers}", rows)
    if reference.get("novelty_bound") is not None:
        _number("reference.novelty_bound", reference["novelty_bound"], -_LARGEST, _LARGEST)
    _whole("reference.unfamiliar", reference.get("unfamiliar", 0), 0, int(_LARGEST))


def _check_general(value: Any, kind: str) -> None:
    if value is None and kind != "general":
        return
    general = _keys("general", value, {"abilities", "strong", "weak", "items"}, {"rating", "background"})
    abilities = _object("general.abilities", general["abilities"])
    if len(abilities) > MAX_MODELS:
        raise ValueError(f"general.abilities has {len(abilities):,} entries; expected at most {MAX_MODELS:,}")
    for name, ability in [*abilities.items(), ("strong", general["strong"]), ("weak", general["weak"])]:
        _number(f"ability of {name}", ability, -_LARGEST, _LARGEST)
    items = _list("general.items", general["items"], MAX_ITEMS)
    if not items:
        raise _wrong("general.items", items, "one item or more")
    for item in items:
        pair = _list("general.items", item)
        if len(pair) != 2:
            raise _wrong("general.items", item, "pairs of a slope and an intercept")
        _each_number("general.items", pair)
    if general.get("rating") is not None:
        rating = _keys("general.rating", general["rating"], {"points", "origin"}, set())
        _number("general.rating.points", rating["points"], 1e-6, _LARGEST)
        _number("general.rating.origin", rating["origin"], -_LARGEST, _LARGEST)
    if general.get("background") is not None:
        _check_background(general["background"])


def _check_background(value: Any) -> None:
    background = _keys("general.background", value, {"mean", "directions", "variances", "rest"}, set())
    directions = _list("general.background.directions", background["directions"], MAX_DIRECTIONS)
    for values in (background["mean"], background["variances"], *directions):
        _each_number("general.background", _list("general.background", values, MAX_DIRECTIONS))
    lengths = {len(values) for values in (background["mean"], *directions)}
    if len(lengths) != 1 or len(background["variances"]) != len(directions):
        raise _wrong("general.background", value, "a variance for each direction, and directions as long as the mean")
    _number("general.background.rest", background["rest"], 0, _LARGEST)


def _check_companion(content: Mapping[str, Any], verifier: bool) -> None:
    if content["companion"] is None:
        return
    if verifier or content["kind"] == "general":
        raise _wrong("companion", content["companion"], f"null, because the kind is {content['kind']!r}")
    companion = _keys("companion", content["companion"], {"truncation", "golden_ids"}, set())
    _check_truncation("companion.truncation", companion["truncation"])
    rows = _list("companion.golden_ids", companion["golden_ids"], MAX_GOLDEN)
    for row in rows:
        for number in _list("companion.golden_ids", row, MAX_GOLDEN_IDS):
            _whole("companion.golden_ids", number, 0, (1 << 31) - 1)
    if len(rows) != len(content["golden"]) or sum(map(len, rows)) > MAX_GOLDEN_IDS:
        raise _wrong(
            "companion.golden_ids",
            rows,
            f"a list for each of the {len(content['golden'])} golden queries, at most {MAX_GOLDEN_IDS:,} ids in all",
        )


def _wrong(name: str, value: Any, expected: str) -> ValueError:
    given = repr(value)
    return ValueError(f"{name} is {given if len(given) <= 200 else given[:200] + '…'}; expected {expected}")


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(name, value, "a JSON object")
    return value


def _keys(name: str, value: Any, needed: set[str], possible: set[str]) -> Mapping[str, Any]:
    found = _object(name, value)
    if not needed <= set(found) <= needed | possible:
        raise _wrong(name, value, f"an object with {sorted(needed | possible)}")
    return found


def _list(name: str, value: Any, most: int | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name, value, "a list")
    if most is not None and len(value) > most:
        raise ValueError(f"{name} has {len(value):,} entries; expected at most {most:,}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a text")
    return value


def _number(name: str, value: Any, least: float, most: float) -> None:
    # NaN fails the comparison; an integer of any length can be compared.
    if type(value) not in (int, float) or not least <= value <= most:
        raise _wrong(name, value, f"a number from {least:g} to {most:g}")


def _each_number(name: str, values: list[Any]) -> None:
    if not set(map(type, values)) <= {int, float} or not all(map(math.isfinite, map(_as_float, values))):
        raise _wrong(name, values, "finite numbers")


def _as_float(value: float) -> float:
    return math.inf if abs(value) > _LARGEST else float(value)


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _wrong(name, value, f"a whole number from {least:,} to {most:,}")
    return value
