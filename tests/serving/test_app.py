"""The endpoint: detections of good requests, and one sentence for each that is not."""

from __future__ import annotations

import http.client
import io
import select
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hdetr_d2.runtime import RuntimeDetector
from tests.conftest import EXPORTED_FROM
from tests.serving.conftest import Served

IMAGES = sorted((EXPORTED_FROM.parents[1] / "data" / "images").iterdir())


def encoded(width: int, height: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, kind)
    return file.getvalue()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n"


def declared(width: int, height: int) -> bytes:
    """A PNG of some bytes that says how large it is."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def test_it_answers_what_the_runtime_detects(served: Served, exported_file: Path) -> None:
    status, answer = served.ask("/detect?threshold=0.05&suppress=0.7", IMAGES[0].read_bytes())
    expected = RuntimeDetector(exported_file, score_threshold=0.05, suppress=0.7)(str(IMAGES[0]))
    assert status == 200
    assert (answer["width"], answer["height"]) == Image.open(IMAGES[0]).size
    assert len(answer["detections"]) == len(expected) > 0
    assert [each["label"] for each in answer["detections"]] == list(expected.names)
    np.testing.assert_allclose([each["score"] for each in answer["detections"]], expected.scores, atol=1e-4)
    np.testing.assert_allclose([each["box"] for each in answer["detections"]], expected.boxes, atol=0.01)


def test_without_a_threshold_each_class_has_its_own(served: Served) -> None:
    _, about = served.ask("/model")
    assert [(each["name"], each["category_id"]) for each in about["classes"]] == [("red", 5), ("green", 7), ("blue", 9)]
    _, answer = served.ask("/detect", IMAGES[0].read_bytes())
    assert all(each["score"] >= 0.3 for each in answer["detections"])


def test_requests_at_the_same_time_get_their_own_answers(served: Served) -> None:
    images = [encoded(40 + place, 64, "JPEG") for place in range(12)]
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda image: served.ask("/detect?threshold=0", image), images))
    assert [answer["width"] for _, answer in answers] == [40 + place for place in range(12)]
    assert {status for status, _ in answers} == {200}


WRONG = {
    "no body": ("/detect", b"", 400, "the body is empty"),
    "no image": ("/detect", b"a note", 415, "the body cannot be read as an image"),
    "half an image": ("/detect", encoded(300, 200)[:200], 415, "the body"),
    "too many pixels": ("/detect", encoded(1000, 501), 413, "1000 x 501 pixels, more than 500,000"),
    "too many bytes": ("/detect", bytes(200_001), 413, "more than 200,000 bytes"),
    "a threshold too high": ("/detect?threshold=1.5", encoded(9, 9), 422, "threshold must be a number in [0, 1]"),
    "no number": ("/detect?threshold=nan", encoded(9, 9), 422, "threshold"),
    "no overlap": ("/detect?suppress=0", encoded(9, 9), 422, "suppress must be a number in (0, 1]"),
    "the same twice": ("/detect?threshold=0.1&threshold=0.9", encoded(9, 9), 422, "threshold is given 2 times"),
    "no such parameter": ("/detect?thresh=0.1", encoded(9, 9), 422, "no parameter 'thresh'; there is threshold and"),
    "a program": ("/detect", POSTSCRIPT, 415, "the body is a program in PostScript, which is not run"),
    "pixels without end": ("/detect", declared(60_000, 60_000), 413, "more than 500,000 pixels"),
    "no such place": ("/nowhere", b"x", 404, "Not Found"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_a_sentence_and_the_server_goes_on(served: Served, case: str) -> None:
    path, body, code, sentence = WRONG[case]
    status, answer = served.ask(path, body)
    assert status == code, answer
    assert sentence in answer["error"]
    assert "/tmp" not in answer["error"]
    assert served.ask("/health") == (200, {"status": "ok"})


def test_a_form_is_told_how_to_send_an_image(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    connection.request("POST", "/detect", b"--x\r\n\r\n" + encoded(9, 9) + b"\r\n--x--\r\n", kind)
    answer = connection.getresponse()
    assert answer.status == 415
    assert b"the body is a form; send the bytes of the image alone" in answer.read()
    connection.close()


MALFORMED = {
    "a length below 0": b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
    "a length in words": b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
    "two lengths": b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "a broken chunk": b"POST /detect HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no host": b"POST /detect HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "a header without end": b"GET / HTTP/1.1\r\nHost: a\r\nX: " + bytes(200_000).replace(b"\0", b"x") + b"\r\n\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_request_is_refused_and_the_server_goes_on(served: Served, case: str) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
        client.sendall(MALFORMED[case])
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert served.ask("/health") == (200, {"status": "ok"})


def test_clients_that_leave_are_not_missed(served: Served) -> None:
    content = encoded(40, 40)
    head = f"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    for sent in (head, head + content[:20], head + content):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
                client.sendall(sent)
    assert served.ask("/detect", content)[0] == 200


def test_a_body_that_is_far_too_large_is_not_read_to_its_end(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as client:
        client.sendall(b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 900000000\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_body_without_a_length_is_held_to_the_limit_too(served: Served) -> None:
    parts = (bytes(50_000) for _ in range(8))
    status, answer = served.ask("/detect", parts)  # in chunks
    assert status == 413
    assert "more than 200,000 bytes" in answer["error"]


def test_a_slow_body_is_not_waited_for(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as slow:
        slow.sendall(b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf of it")
        assert served.ask("/health")[0] == 200  # meanwhile
        answer = slow.recv(65536).decode()
        while "error" not in answer:
            answer += slow.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 408 ")
    assert "was not there after 1 seconds" in answer


def test_headers_that_do_not_come_are_not_waited_for_and_a_connection_in_use_stays(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as silent:
        silent.sendall(b"POST /detect HTTP/1.1\r\nHost: ")
        used = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
        used.connect()
        own = used.sock
        closed = False
        while not closed:  # as long as the silent one is borne, which is as long as any is
            used.request("GET", "/health")
            assert used.getresponse().read() == b'{"status":"ok"}'
            closed = bool(select.select([silent], [], [], 0.3)[0])
        assert silent.recv(1) == b""
        used.request("GET", "/health")
        assert used.getresponse().read() == b'{"status":"ok"}'
        assert used.sock is own
        used.close()


def test_it_describes_itself(served: Served) -> None:
    status, document = served.ask("/openapi.json")
    assert status == 200
    assert document["openapi"] == "3.1.0"
    detect = document["paths"]["/detect"]["post"]
    assert {each["name"] for each in detect["parameters"]} == {"threshold", "suppress"}
    _, answer = served.ask("/detect?threshold=0", IMAGES[0].read_bytes())
    schemas = document["components"]["schemas"]
    assert set(answer) == set(schemas["Found"]["required"])
    assert set(answer["detections"][0]) == set(schemas["Detection"]["required"])
    assert {"413", "415", "422", "503", "504"} <= set(detect["responses"])
