"""``higherhrnet serve``."""

from __future__ import annotations

import argparse
import math
import signal
from contextlib import suppress

from ..errors import UserError, WriteError
from ..factory.device import choose_device


def serve(options: argparse.Namespace) -> int:
    """Answer HTTP requests until interrupted."""
    try:
        import uvicorn

        from ..serve.app import build_app
        from ..serve.models import serve_model
        from ..serve.requests import Limits
    except ImportError as error:
        raise UserError(
            f"serving needs the package {error.name}: pip install 'higherhrnet[serve]'"
        ) from error
    device = str(choose_device(options.device))
    models = [serve_model(options.weights, device, options.overrides, options.preset)]
    for name in options.compare:
        models.append(serve_model(name, device, []))
        if models[-1].method == models[0].method:
            raise UserError(
                f"--compare '{name}' is {models[0].method} as '{options.weights}' is: requests "
                "could not tell them apart"
            )
    test = models[0].predictors["default"]
    limits = Limits(
        queue=options.queue, body=options.max_bytes, pixels=options.max_pixels,
        seconds=options.timeout,
    )  # fmt: skip
    app = build_app(models, limits, test.batch_size, test.workers)
    config = uvicorn.Config(
        app, host=options.host, port=options.port, log_level="warning",
        timeout_graceful_shutdown=math.ceil(options.timeout), ws_max_size=options.max_bytes,
        limit_concurrency=4 * options.queue + 64,
    )  # fmt: skip
    server = uvicorn.Server(config)
    try:
        socket = config.bind_socket()
    except SystemExit as error:  # uvicorn has logged the reason
        raise WriteError(
            f"{options.host}:{options.port} cannot be listened on; choose another --port"
        ) from error
    socket.listen(config.backlog)  # whoever reads the address may connect
    host, port = socket.getsockname()[:2]
    print(f"{options.weights}: http://{host}:{port}/ (Ctrl-C ends)", flush=True)
    # uvicorn ends well on a signal, then raises it again.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[socket])
    return 0
