"""The texts of the page in other languages: one TOML file for each, keyed by name. English stays where it is used.

translate.js asks for the language that `?lang=` names, and shows these texts in place of the English ones. A text may
have named places, as "About {label}"; `{count}` is a number. Names of models and strategies, and errors, stay English.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse
from starlette.routing import Route

LANGUAGES = {file.stem: file for file in sorted(Path(__file__).parent.glob("*.toml"))}


def read(language: str) -> dict[str, str]:
    """The texts in this language, by name, such as "setting.seed.label"."""
    return dict(_flat(tomllib.loads(LANGUAGES[language].read_text("utf-8"))))


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def routes(english: Mapping[str, str]) -> list[Route]:
    """A route for each language. It answers with the other text by the English one."""
    return [_route(language, english) for language in LANGUAGES]


def _route(language: str, english: Mapping[str, str]) -> Route:
    table = {english[name]: text for name, text in read(language).items() if name in english}

    async def answer(_: Any) -> JSONResponse:
        return JSONResponse(table, headers={"cache-control": "public, max-age=3600"})

    return Route(f"/translations/{language}.json", answer)
