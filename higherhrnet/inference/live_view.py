"""A page that shows what is drawn while it is drawn: motion JPEG on a local port."""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2

from ..drawing import Image
from ..errors import WriteError

_PAGE = b"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>higherhrnet</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"></head>
<body style="margin:0;background:#111;display:grid;place-items:center;min-height:100vh">
<img src="stream" alt="What the camera sees, with the people drawn on it"
style="max-width:100vw;max-height:100vh"></body></html>"""
_WAIT = 1.0


class LiveView:
    """Serves the newest image to any number of browsers; a context.

    Args:
        port: on this machine; 0 takes a free one.

    Raises:
        WriteError: the port is taken.
    """

    def __init__(self, port: int) -> None:
        self._changed = threading.Condition()
        self._jpeg = b""
        self._number = 0
        self._closed = False
        view = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                view._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Requests are not worth a line."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise WriteError(
                f"port {port} cannot be listened on; choose another: --live PORT"
            ) from error
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> LiveView:
        threading.Thread(target=self._server.serve_forever, name="live", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def show(self, image: Image) -> None:
        """Show an (H, W, 3) uint8 RGB image."""
        _, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        with self._changed:
            self._jpeg, self._number = jpeg.tobytes(), self._number + 1
            self._changed.notify_all()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/":
            request.send_response(HTTPStatus.OK)
            request.send_header("Content-Type", "text/html; charset=utf-8")
            request.end_headers()
            request.wfile.write(_PAGE)
        elif request.path == "/stream":
            request.send_response(HTTPStatus.OK)
            request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            request.end_headers()
            self._send_frames(request)
        else:
            request.send_error(HTTPStatus.NOT_FOUND)

    def _send_frames(self, request: BaseHTTPRequestHandler) -> None:
        last = 0
        while True:
            with self._changed:
                if self._number == last and not self._closed:
                    self._changed.wait(_WAIT)
                if self._closed:
                    return
                jpeg, number = self._jpeg, self._number
            if number == last:
                continue
            last = number
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                request.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:  # the browser went away
                return
