"""Each route of the pinned Gradio is served or closed. A closed one answers like one that does not exist."""

import re

import pytest

from parley.api.routes import CLOSED, OF_AGENTS, SERVED, is_served

pytest_plugins = ["tests.browser"]


def routes(router):
    """The routes of an app of FastAPI, as "METHOD /path"."""
    for route in router.routes:
        if inner := getattr(route, "original_router", None):
            yield from routes(inner)
        for method in getattr(route, "methods", None) or ():
            yield f"{method} {route.path}"


def test_every_route_has_a_reason_to_be_served_or_closed(inside):
    found = {re.sub(r"(?<=[^ ])/$", "", route) for route in routes(inside.demo.app.router)}
    found = {re.sub(r"/translations/\w+", "/translations/{language}", route) for route in found}
    found = {re.sub(r"/(saved_view|shared)/\w+", r"/\1/{view}", route) for route in found}
    assert found - {*SERVED, *CLOSED} == set()
    assert {*SERVED, *CLOSED} - found == {*OF_AGENTS}  # which are off here
    assert not {*SERVED} & {*CLOSED}


@pytest.mark.parametrize("route", CLOSED)
def test_a_closed_route_is_not_found(http, route):
    method, path = route.split(" ")
    answer = http.request(method, re.sub(r"\{\w+(:path)?\}", "x", path), content=b"{}" if method == "POST" else None)
    assert answer.status_code == 404
    assert method == "HEAD" or answer.json() == {"detail": "There is nothing here."}


def test_a_name_that_no_file_can_have_is_not_found(http):
    assert not is_served("GET", "/static/" + "x" * 3000)
    assert http.get("/assets/" + "ü" * 200).status_code == 404


@pytest.mark.parametrize("query", ["page=x", "deep_link=x", "page=x&model=parrot"])
def test_a_query_that_gradio_would_take_for_itself_opens_the_page(http, query):
    answer = http.get(f"/?{query}")
    assert answer.status_code == 200 and 'id="skeleton"' in answer.text
