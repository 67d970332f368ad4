"""The script by which a page that embeds this one gives its frame the right height: see docs/embedding.md."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SCRIPT = (Path(__file__).parent / "embed.js").read_bytes()


async def _script(_: Request) -> Response:
    return Response(SCRIPT, media_type="text/javascript", headers={"cache-control": "public, max-age=3600"})


ROUTES = [Route("/embed.js", _script)]
