"""What a run says about itself: a log of JSON lines, and a small page on this machine's own port.

The page loads nothing from elsewhere and changes nothing: it cannot stop a robot. It is bound to
127.0.0.1. To read it on a phone, forward the port (`ssh -L`).
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TextIO

from base.errors import UserError

EVERY = 1.0  # seconds between two lines of the log
HERE = ("127.0.0.1", "localhost")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>robot</title>
<style>
:root { color-scheme: light dark; font: 18px/1.4 system-ui, sans-serif; }
body { max-width: 32rem; margin: 1rem auto; padding: 0 1rem; }
#stage { font-size: 2rem; font-weight: 700; padding: .5rem 1rem; color: #fff; border-radius: 8px; }
table { width: 100%; border-collapse: collapse; margin-top: 1rem; }
td { padding: .3rem 0; border-bottom: 1px solid #8884; }
td:last-child { text-align: right; font-variant-numeric: tabular-nums; }
</style>
<div id="stage" role="status">no answer</div><p id="reason"></p><table id="rows"></table>
<script>
const colours = {run: "#176b3a", start: "#335", hold: "#8a5300", ramp: "#8a1c1c", over: "#444"};
function show(values) {
  const stage = document.getElementById("stage");
  stage.textContent = values.stage;
  stage.style.background = colours[values.stage] || "#8a1c1c";
  document.getElementById("reason").textContent = values.reason || "";
  const rows = document.getElementById("rows");
  rows.replaceChildren();
  const {stage: _, reason: __, counts, ...rest} = values;
  for (const [name, value] of Object.entries({...rest, ...counts})) {
    const row = rows.insertRow();
    row.insertCell().textContent = name.replaceAll("_", " ");
    row.insertCell().textContent = value;
  }
}
async function ask() {
  try {
    show(await (await fetch("status.json", {cache: "no-store"})).json());
  } catch {
    show({stage: "no answer", reason: "the run is over, or the connection is", counts: {}});
  }
  setTimeout(ask, 1000);
}
ask();
</script></html>
"""


class Journal:
    """The log of a run: a line per second, and a line whenever the stage changes."""

    def __init__(self, file: TextIO | None):
        self.file = file
        self.stage = ""
        self.due = float("-inf")

    def note(self, now: float, stage: str, snapshot: Callable[[], dict]) -> None:
        """Write a line if it is time for one."""
        if self.file is None or (now < self.due and stage == self.stage):
            return
        event = {} if stage == self.stage else {"event": stage}
        self.stage, self.due = stage, now + EVERY
        self.file.write(json.dumps(event | snapshot()) + "\n")
        self.file.flush()  # a log of a run that was killed is read too


def serve(snapshot: Callable[[], dict], port: int) -> ThreadingHTTPServer:
    """Serve the page until `shutdown` is called. port: 0 takes a free port.

    Raises UserError if the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            # A page of another site that points its own name here is refused.
            if self.headers.get("Host", "").split(":")[0] not in HERE:
                self.send_error(403)
                return
            if self.path == "/":
                self.answer("text/html; charset=utf-8", PAGE)
            elif self.path == "/status.json":
                self.answer("application/json", json.dumps(snapshot()))
            else:
                self.send_error(404)

        def answer(self, kind: str, text: str) -> None:
            data = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format, *arguments):
            """The terminal belongs to the robot."""

    try:
        server = ThreadingHTTPServer((HERE[0], port), Handler)
    except OSError as error:
        raise UserError(
            f"port {port}, which cannot be used ({error.strerror})",
            "a free port",
            "choose another --status_port",
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="status", daemon=True).start()
    return server
