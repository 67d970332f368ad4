"""What of the page comes first: compressed HTML with a skeleton, and its own files only once."""

import re

pytest_plugins = ["tests.browser"]
MAX_BYTES = 25_000  # of the first HTML, compressed


def test_the_first_html_is_small_and_has_a_skeleton(http):
    with http.stream("GET", "/", headers={"Accept-Encoding": "gzip"}) as answer:
        sent = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip" and len(sent) < MAX_BYTES
    html = http.get("/").text
    assert html.count('id="skeleton"') == 1
    assert html.index("page.js?v=") < html.index('type="module"')  # before the scripts of Gradio


def test_its_files_are_kept_by_the_browser_and_change_their_names_with_their_content(http):
    html = http.get("/").text
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript")):
        (path,) = re.findall(rf"{re.escape(name)}\?v=\w{{12}}", html)
        answer = http.get(f"/{path}")
        assert answer.headers["content-type"].startswith(kind) and "immutable" in answer.headers["cache-control"]
        assert len(answer.text) > 10_000


def test_other_answers_are_left_alone(http):
    assert http.get("/config").json()["title"] == "Parley"
    assert "skeleton" not in http.get("/nothing/here").text
