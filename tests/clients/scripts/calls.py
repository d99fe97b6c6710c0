"""What the scripts share: the case on stdin, the calls of a client one by one, what each gave on stdout."""

import asyncio
import inspect
import json
import sys
from importlib.metadata import version

CASE = json.load(sys.stdin)
URL, KEY, TEXTS, QUERY = CASE["url"], CASE["key"], CASE["texts"], CASE["query"]
_done = {}


def call(function):
    """Run a function now, and keep what it gave or raised under its name."""
    try:
        made = function()
        _done[function.__name__] = {"gave": asyncio.run(made) if inspect.isawaitable(made) else made}
    except Exception as error:
        places = [(error, "status_code"), (getattr(error, "response", None), "status_code")]
        places += [(error, "http_status"), (error, "code")]  # Voyage's and Google's
        found = (getattr(place, name, None) for place, name in places)
        status = next((number for number in found if isinstance(number, int)), None)
        kinds = [kind.__name__ for kind in type(error).__mro__]
        _done[function.__name__] = {"raised": kinds, "status": status, "said": str(error)}
    return function


def told(package):
    """Say all of it, with the version of the client."""
    json.dump({"version": version(package), "calls": _done}, sys.stdout, default=float)
