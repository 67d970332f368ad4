"""The passes of one decoder, watched where the library computes them."""

import threading
from contextlib import contextmanager

import openvino


class Passes:
    """How many passes have begun."""

    begun = 0


@contextmanager
def watched(decoder, happens):
    """Calls `happens` with the number of each pass of this decoder, just before the library computes it."""
    passes, here = Passes(), threading.local()
    run, infer = decoder.run, openvino.InferRequest.infer

    def run_here(*given, **named):
        here.inside = True
        try:
            return run(*given, **named)
        finally:
            here.inside = False

    def infer_here(request, *given, **named):
        if getattr(here, "inside", False):
            passes.begun += 1
            happens(passes.begun)
        return infer(request, *given, **named)

    decoder.run, openvino.InferRequest.infer = run_here, infer_here
    try:
        yield passes
    finally:
        openvino.InferRequest.infer = infer
        del decoder.run  # the method of the class is there again
