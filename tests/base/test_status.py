"""The log and the page: what they say, and to whom."""

import io
import json
import urllib.error
import urllib.request

import pytest

from base.errors import UserError
from base.status import PAGE, Journal, serve


def test_the_log_has_a_line_per_second_and_per_change():
    file = io.StringIO()
    journal = Journal(file)
    for step in range(25):
        stage = "run" if step < 12 else "hold"
        journal.note(step / 10, stage, lambda: {"steps": step})  # noqa: B023
    lines = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [line["steps"] for line in lines] == [0, 10, 12, 22]
    assert [line.get("event") for line in lines] == ["run", None, "hold", None]
    Journal(None).note(0.0, "run", dict)


def ask(port, path, host=None):
    headers = {"Host": host} if host else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def test_the_page_and_its_figures():
    server = serve(lambda: {"stage": "run", "counts": {"chunks": 3}}, 0)
    try:
        port = server.server_port
        assert server.server_address[0] == "127.0.0.1"
        assert ask(port, "/") == PAGE and "http" not in PAGE.replace("https://", "http")
        assert json.loads(ask(port, "/status.json"))["counts"] == {"chunks": 3}
        for path, host, code in (("/other", None, 404), ("/", "evil.example", 403)):
            with pytest.raises(urllib.error.HTTPError) as error:
                ask(port, path, host)
            assert error.value.code == code
        with pytest.raises(UserError, match="which cannot be used"):
            serve(dict, port)
    finally:
        server.shutdown()
        server.server_close()
