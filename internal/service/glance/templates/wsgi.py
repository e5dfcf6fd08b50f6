# Written by nines: changes are drift and will be undone.
"""Glance's application for uWSGI 2.0, with bodies that come in chunks.

uWSGI 2.0 gives an application that reads such a body by WSGI's ways an empty one, and an
image would be stored empty without an error. Its own call returns the chunks.
"""
import threading

import uwsgi
from glance.common import wsgi_app


class ChunkedBody:
    """A body of unknown length, read as WSGI says."""

    def __init__(self):
        self.rest = b""
        self.ended = False

    def read(self, size=-1):
        if size is None:
            size = -1
        while not self.ended and (size < 0 or len(self.rest) < size):
            chunk = uwsgi.chunked_read()
            self.ended = not chunk
            self.rest += chunk
        if size < 0:
            size = len(self.rest)
        out, self.rest = self.rest[:size], self.rest[size:]
        return out


def chunked(app):
    """Let app read bodies that come in chunks."""

    def handle(environ, start_response):
        if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
            environ["wsgi.input"] = ChunkedBody()
            environ["wsgi.input_terminated"] = True
        return app(environ, start_response)

    return handle


with threading.Lock():
    application = chunked(wsgi_app.init_app())
