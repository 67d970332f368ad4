"""What an owner's tools ask: /healthz for a supervisor, and /metrics for Prometheus."""

import asyncio

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from parley.api.security import refusal
from parley.config import METRICS as SHOWN
from parley.models import registry
from parley.serving import turn
from parley.serving.operations import health
from parley.serving.operations.metrics import METRICS, Gauge
from parley.serving.waiting_line import LINE

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


async def healthz(_: Request) -> Response:
    """200 where a token was made within the last minute, else 503 with a sentence."""
    well = await asyncio.to_thread(health.HEALTH.is_well)
    return PlainTextResponse("ok\n") if well else refusal(503, health.ILL)


async def metrics(_: Request) -> Response:
    """What was counted; 404 where the owner does not want it."""
    if not SHOWN.read():
        return refusal(404, "There is nothing here.")
    models = registry.models().values()
    gauges: dict[str, Gauge] = {
        "parley_running": ("Turns that run, by model.", [({"model": m.name}, LINE.num_running(m)) for m in models]),
        "parley_waiting": ("Turns that wait for a place.", [({}, LINE.num_waiting())]),
        "parley_tokens_per_second": (
            "Tokens that all turns of a model make together, lately.",
            [({"model": m.name}, turn.POOL.tokens_per_second(m)) for m in models],
        ),
        "parley_cache_bytes": ("Memory of the caches of sessions.", [({}, turn.POOL.cached_bytes)]),
        "parley_model_bytes": (
            "Memory of the models that are loaded.",
            [({"model": name}, size) for name, size in turn.POOL.loaded.items()],
        ),
    }
    return PlainTextResponse(METRICS.text(gauges), media_type=PROMETHEUS)


ROUTES = [Route("/healthz", healthz), Route("/metrics", metrics)]
