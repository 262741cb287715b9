"""The retrieval server over real HTTP: the wire format, its limits, and what many clients at once get."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safeladder.search.gate import Gate, RateLimit
from safeladder.search.retriever import Document, Hit, MemoryRetriever, RetrievalFault
from safeladder.search.server import is_loopback, listen, run
from safeladder.search.service import Limits, create_app
from safeladder.types import SafeladderError
from search.serving import PAGES, serving

pytest.importorskip("fastapi", reason="needs the search extra")
httpx = pytest.importorskip("httpx", reason="needs the search extra")
uvicorn = pytest.importorskip("uvicorn", reason="needs the search extra")

LIMITS = Limits(body_bytes=20_000, top_k=10, queries=40, results=100, threads=2)
QUERY = "In what year was Citibank founded?"


@pytest.fixture(scope="module")
def url():
    with serving(create_app(MemoryRetriever(PAGES), limits=LIMITS, about={"documents": 4})) as url:
        yield url


@pytest.fixture(scope="module")
def client(url):
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        yield client


class Slow:
    """A retriever that waits for `free` before it answers, and counts who waits."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.searching = threading.Semaphore(0)
        self.searched: list[str] = []

    def search(self, query: str, k: int) -> list[Hit]:
        self.searching.release()
        assert self.free.wait(20)
        self.searched.append(query)
        return [Hit(id=query, title=query, abstract="", score=1.0)]

    def read(self, id: str) -> Document | None:
        return Document(id=id, title=id, text="")


def one_line(reply) -> str:
    """The one line of JSON that every refusal is."""
    body = reply.json()
    assert set(body) <= {"detail", "missing"}
    assert isinstance(body["detail"], str)
    assert body["detail"]
    assert "\n" not in body["detail"]
    return body["detail"]


# The wire


def test_retrieve_is_the_wire_format_of_search_r1(client):
    """Its server answers `result` [query][rank]; with `return_scores` each is {document, score}, else the document.

    Its client takes a document's first line of `contents` for the title and the rest for the text.
    """
    reply = client.post("/retrieve", json={"queries": [QUERY, "yaks"], "topk": 2, "return_scores": True})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "application/json"
    expected = {QUERY: MemoryRetriever(PAGES).search(QUERY, 2), "yaks": MemoryRetriever(PAGES).search("yaks", 2)}
    text_of = {page.id: f'"{page.title}"\n{page.text}' for page in PAGES}
    assert reply.json() == {
        "result": [
            [{"document": {"id": hit.id, "contents": text_of[hit.id]}, "score": hit.score} for hit in hits]
            for hits in expected.values()
        ]
    }
    assert [len(hits) for hits in expected.values()] == [2, 1]
    contents = reply.json()["result"][1][0]["document"]["contents"]
    assert contents.split("\n")[0] == '"A "quoted" title"'
    assert "\n".join(contents.split("\n")[1:]) == "First line about yaks.\nSecond line."


def test_retrieve_without_scores_and_with_its_defaults(client):
    """Search-R1 takes a missing, null or zero topk for its default, 3."""
    words = "bank president 大学 yaks of in"
    for body in ({}, {"topk": None}, {"topk": 0}, {"topk": 3, "return_scores": False}):
        (documents,) = client.post("/retrieve", json={"queries": [words], **body}).json()["result"]
        assert len(documents) == 3
        assert all(set(document) == {"id", "contents"} for document in documents)
    assert client.post("/retrieve", json={"queries": []}).json() == {"result": []}
    assert client.post("/retrieve", json={"queries": ["zebra"]}).json() == {"result": [[]]}


def test_a_batch_comes_back_in_its_order(client):
    """More queries than one thread takes at a time."""
    queries = ["citibank", "madison", "北京", "yaks", "zebra"] * 8
    result = client.post("/retrieve", json={"queries": queries, "topk": 1}).json()["result"]
    assert [[d["id"] for d in documents] for documents in result] == [["1"], ["2"], ["3"], ["4"], []] * 8


def test_search_and_read(client):
    hits = client.post("/search", json={"query": QUERY, "k": 1}).json()["hits"]
    (hit,) = MemoryRetriever(PAGES).search(QUERY, 1)
    assert hits == [{"id": "1", "title": "Citibank", "abstract": PAGES[0].text, "score": hit.score}]
    assert client.post("/read", json={"id": "4"}).json() == {
        "id": "4", "title": 'A "quoted" title', "text": "First line about yaks.\nSecond line.",
    }  # fmt: skip
    missing = client.post("/read", json={"id": "99"})
    assert (missing.status_code, missing.json()["missing"]) == (404, True)
    assert one_line(missing) == "no page has this id"


def test_chinese_there_and_back(client):
    reply = client.post("/retrieve", json={"queries": ["北京大学在哪里"], "topk": 1})
    assert reply.json()["result"] == [[{"id": "3", "contents": '"北京大学"\n北京大学是一所位于北京的大学。'}]]
    assert "北京大学".encode() in reply.content, "UTF-8, not escapes"
    assert client.post("/search", json={"query": "位于北京", "k": 1}).json()["hits"][0]["title"] == "北京大学"


def test_health(client):
    assert client.get("/health").json() == {"status": "ok", "documents": 4}


# What cannot be served

BAD = [
    b"", b"{", b"null", b"[]", b"5", b'"x"', b"\xff\xfe", b'{"queries": ["\xff"]}', b"[" * 9_000, b"9" * 9_000,
    b'{"queries": [' + b"[" * 9_000,
    b'{"queries": "one"}', b'{"queries": [1]}', b'{"queries": [null]}', b'{"queries": {"a": "b"}}',
    b'{"queries": ["x"], "topk": -1}', b'{"queries": ["x"], "topk": 11}', b'{"queries": ["x"], "topk": 1.5}',
    b'{"queries": ["x"], "topk": NaN}', b'{"queries": ["x"], "topk": 1e999}', b'{"queries": ["x"], "topk": "many"}',
    b'{"queries": ["x"], "return_scores": "perhaps"}', b'{"query": "x", "k": 0}', b'{"query": "x", "k": 11}',
    b'{"query": ["x"]}', b'{"query": "x", "k": ' + b"9" * 5_000 + b"}", b'{"id": 7}', b'{"id": {"$ne": 1}}',
    json.dumps({"queries": ["x"] * 41}).encode(), json.dumps({"queries": ["x"] * 11, "topk": 10}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("path", ["/retrieve", "/search", "/read"])
@pytest.mark.parametrize("body", BAD, ids=lambda body: repr(body[:24])[2:-1])
def test_a_malformed_body_is_4xx_with_one_line(client, path, body):
    reply = client.post(path, content=body, headers={"content-type": "application/json"})
    assert 400 <= reply.status_code < 500
    assert one_line(reply)


def test_a_refusal_says_what_is_allowed(client):
    def said(path: str, **body) -> tuple[int, str]:
        reply = client.post(path, json=body)
        return reply.status_code, one_line(reply)

    assert said("/retrieve", queries="one") == (422, "body.queries: Input should be a valid list")
    assert said("/retrieve", queries=["a", 1]) == (422, "body.queries.1: Input should be a valid string")
    assert said("/retrieve", queries=["a"], topk=11) == (422, "1 to 10 results can be asked for, not 11")
    assert said("/retrieve", queries=["a"] * 41) == (422, "at most 40 queries a request, not 41")
    assert said("/retrieve", queries=["a"] * 11, topk=10) == (422, "at most 100 results a request, not 11 times 10")
    assert said("/search", k=3) == (422, "body.query: Field required")


KEYS = ["queries", "topk", "query", "k", "id"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None)),
        lambda values: st.lists(values) | st.dictionaries(st.sampled_from(KEYS), values),
        max_leaves=8,
    ),
    st.sampled_from(["/retrieve", "/search", "/read"]),
)  # fmt: skip
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_json_at_all_is_a_server_error(client, body, path):
    reply = client.post(path, content=json.dumps(body).encode(), headers={"content-type": "application/json"})
    assert reply.status_code < 500
    if reply.status_code != 200:
        assert one_line(reply)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "x" * 15_000, '") OR title:* ^~', "😀" * 99, " ", "​"])
def test_any_text_is_a_query(client, text):
    body = json.dumps({"query": text})
    assert client.post("/search", content=body, headers={"content-type": "application/json"}).status_code == 200
    body = json.dumps({"id": text})
    assert client.post("/read", content=body, headers={"content-type": "application/json"}).status_code == 404


def test_an_oversize_body_is_413_whether_its_length_is_declared_or_not(client):
    for content in (b"x" * 20_001, iter([b"x" * 10_000] * 3), b"x" * 200_000):
        reply = client.post("/search", content=content, headers={"content-type": "application/json"})
        assert reply.status_code == 413
        assert one_line(reply) == "a body of more than 20000 bytes"
    largest = json.dumps({"query": ""}).encode()
    largest = largest[:-2] + b"x" * (20_000 - len(largest)) + largest[-2:]
    assert len(largest) == 20_000
    assert client.post("/search", content=largest, headers={"content-type": "application/json"}).status_code == 200


def test_other_routes_and_methods_are_4xx(client):
    assert client.get("/retrieve").status_code == 405
    assert client.post("/retriev", json={}).status_code == 404
    assert client.post("/search", content=b"query=x").status_code == 422, "a form is no JSON"


def test_a_body_that_never_ends_is_given_up():
    limits = Limits(body_seconds=0.05, threads=1)
    with serving(create_app(MemoryRetriever(PAGES), limits=limits)) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(b"POST /search HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            assert line.recv(100).startswith(b"HTTP/1.1 408 ")


# The key


@pytest.fixture(scope="module")
def locked():
    app = create_app(MemoryRetriever(PAGES), limits=LIMITS, api_key="right key")
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Basic right key"}, 401),
        ({"authorization": "right key"}, 401),
        ({"x-api-key": ""}, 401),
        ({"x-api-key": "right"}, 401),
        ({"x-api-key": "right key and more"}, 401),
        ({"x-api-key": "right key"}, 200),
        ({"authorization": "Bearer right key"}, 200),
        ({"authorization": "bearer right key"}, 200),
    ],
)
def test_the_key(locked, headers, status):
    for path, body in (("/search", {"query": "bank"}), ("/retrieve", {"queries": ["bank"]}), ("/read", {"id": "1"})):
        reply = locked.post(path, json=body, headers=headers)
        assert reply.status_code == status
        if status == 401:
            assert one_line(reply) == "the API key is wrong or missing"
            assert reply.headers["www-authenticate"] == "Bearer"


def test_without_the_key_only_health_is_answered(locked):
    assert locked.get("/health").status_code == 200
    for path in ("/openapi.json", "/docs", "/nothing"):
        assert locked.get(path).status_code == 401
    assert locked.post("/search", content=b"{").status_code == 401, "nothing is parsed for a stranger"


@pytest.mark.parametrize("key", ["", " ", "a\nb", "schlüssel", " padded"])
def test_a_key_that_nobody_could_send_is_refused(key):
    """An empty key would be that of a client that sends none."""
    with pytest.raises(SafeladderError, match="printable ASCII"):
        create_app(MemoryRetriever(PAGES), limits=LIMITS, api_key=key)


# The rate


def test_rate_by_hand():
    """4 queries a second, a bucket of 4: after 4 at once one more has to wait 1/4 s."""
    now = [0.0]
    limit = RateLimit(4.0, lambda: now[0])
    assert [limit.spend("a", 1) for _ in range(4)] == [0.0] * 4
    assert limit.spend("a", 1) == 0.25
    assert limit.spend("b", 4) == 0.0, "another client"
    now[0] = 0.25
    assert limit.spend("a", 1) == 0.0
    now[0] = 100.0
    assert limit.spend("a", 10) == 0.0, "a full bucket lets a large batch pass"
    assert limit.spend("a", 1) == (6 + 1) / 4, "and has it paid off: 4 − 10 = −6, up to 1"


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), max_size=60))
def test_nobody_gets_more_than_the_rate(asked):
    """Admitted queries never exceed rate · time + one bucket + the last batch."""
    now, admitted, last = 0.0, 0, 0
    limit = RateLimit(5.0, lambda: now)
    for pause, queries in asked:
        now += pause
        if limit.spend("a", queries) == 0.0:
            admitted, last = admitted + queries, queries
        assert admitted - last <= 5.0 * now + 5.0 + 1e-6


def test_too_many_queries_a_second_are_429_with_the_time_to_wait():
    app = create_app(MemoryRetriever(PAGES), limits=Limits(queries_a_second=1, threads=1))
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.post("/retrieve", json={"queries": ["bank"] * 30}).status_code == 200
        reply = client.post("/search", json={"query": "bank"})
        assert (reply.status_code, one_line(reply)) == (429, "too many queries a second")
        assert 28 <= int(reply.headers["retry-after"]) <= 30, "1 − 30 = −29, up to 1"
        assert client.get("/health").status_code == 200


# Many at once


def test_K05_a_search_does_not_hold_up_the_server():
    slow = Slow()
    with (
        serving(create_app(slow, limits=Limits(threads=1))) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20) as client,
        ThreadPoolExecutor(1) as other,
    ):
        search = other.submit(client.post, "/search", json={"query": "a"})
        assert slow.searching.acquire(timeout=10)
        assert client.get("/health").status_code == 200
        assert not search.done()
        slow.free.set()
        assert search.result().json()["hits"][0]["id"] == "a"


def test_overload_is_503_and_passes():
    slow = Slow()
    with (
        serving(create_app(slow, limits=Limits(threads=2, waiting=2))) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=20) as client,
        ThreadPoolExecutor(2) as others,
    ):
        working = [others.submit(client.post, "/search", json={"query": name}) for name in "ab"]
        for _ in working:
            assert slow.searching.acquire(timeout=10)
        for path, body in (("/retrieve", {"queries": ["c"]}), ("/search", {"query": "c"}), ("/read", {"id": "c"})):
            refused = client.post(path, json=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert one_line(refused) == "too many requests at once; come again"
        assert client.get("/health").status_code == 200
        slow.free.set()
        assert all(reply.result().status_code == 200 for reply in working)
        assert client.post("/search", json={"query": "d"}).status_code == 200


def test_no_answer_is_mixed_up():
    """Sixteen clients, each with its own words, over both routes."""
    pages = [Document(id=f"p{i}", title=f"name{i}", text=f"about name{i}") for i in range(64)]

    def ask(place: int) -> list[tuple[str, str]]:
        wrong = []
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as mine:
            for step in range(12):
                names = [f"name{(place * 4 + i + step) % 64}" for i in range(4)]
                result = mine.post("/retrieve", json={"queries": names, "topk": 1}).json()["result"]
                first = [documents[0]["contents"].split("\n")[0] for documents in result]
                wrong += [pair for pair in zip(names, first, strict=True) if pair[1] != f'"{pair[0]}"']
                hit = mine.post("/search", json={"query": names[0], "k": 1}).json()["hits"][0]
                wrong += [(names[0], hit["title"])] if hit["title"] != names[0] else []
        return wrong

    with serving(create_app(MemoryRetriever(pages), limits=LIMITS)) as url, ThreadPoolExecutor(16) as clients:
        assert [wrong for wrongs in clients.map(ask, range(16)) for wrong in wrongs] == []


def test_who_leaves_is_no_longer_worked_for():
    slow = Slow()
    body = json.dumps({"queries": [f"{i}" for i in range(64)]}).encode()
    head = f"POST /retrieve HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    with serving(create_app(slow, limits=Limits(threads=1, waiting=2))) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as line:
            line.sendall(f"{head}\r\n\r\n".encode() + body)
            assert slow.searching.acquire(timeout=10)
        with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
            for _ in range(5):
                assert client.get("/health").status_code == 200
            slow.free.set()
            assert client.post("/search", json={"query": "mine"}).status_code == 200
    assert len(slow.searched) == 16 + 1, "the queries that a thread had taken, and mine"


def test_a_retriever_that_fails_is_503_and_says_why():
    class Broken(Slow):
        def search(self, query: str, k: int) -> list[Hit]:
            raise RetrievalFault("the index cannot be read: gone")

    with serving(create_app(Broken(), limits=LIMITS)) as url, httpx.Client(base_url=url, trust_env=False) as client:
        for path, body in (("/search", {"query": "a"}), ("/retrieve", {"queries": ["a"]})):
            reply = client.post(path, json=body)
            assert (reply.status_code, one_line(reply)) == (503, "the index cannot be read: gone")
            assert reply.headers["retry-after"] == "1"


def test_a_page_that_vanished_is_a_fault_and_not_left_out():
    class Forgetful(Slow):
        def read(self, id: str) -> Document | None:
            return None

    retriever = Forgetful()
    retriever.free.set()
    with serving(create_app(retriever, limits=LIMITS)) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.post("/retrieve", json={"queries": ["a"]}).status_code == 503


def test_shutdown_lets_the_work_finish():
    slow = Slow()
    with ThreadPoolExecutor(1) as other:
        with serving(create_app(slow, limits=Limits(threads=1))) as url:
            search = other.submit(httpx.post, f"{url}/search", json={"query": "a"}, trust_env=False, timeout=20)
            assert slow.searching.acquire(timeout=10)
            threading.Timer(0.2, slow.free.set).start()
        assert search.result().json()["hits"][0]["id"] == "a"


# The gate by itself


def test_a_client_that_leaves_while_it_sends_is_not_answered():
    async def never(scope, receive, send):
        raise AssertionError("the request is not whole")

    async def receive():
        return next(messages)

    async def send(message):
        raise AssertionError("nobody is there")

    messages = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])
    gate = Gate(never, body_bytes=10, body_seconds=1, api_key=None)
    asyncio.run(gate({"type": "http", "path": "/search", "headers": []}, receive, send))


# Where it listens


@pytest.mark.parametrize(
    ("host", "only_here"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("203.0.113.7", False), ("example.org", False), ("", False), ("127.0.0.1.example.org", False)],
)  # fmt: skip
def test_which_addresses_are_this_machine(host, only_here):
    assert is_loopback(host) is only_here
    if not only_here:
        with pytest.raises(SafeladderError, match=r"set an API key .* or say --no-api-key"):
            listen(host, 0, protected=False)


def test_a_port_that_is_taken_is_one_line():
    with listen("127.0.0.1", 0, protected=False) as at:
        with pytest.raises(SafeladderError, match=r"cannot listen on 127\.0\.0\.1, port") as caught:
            listen("127.0.0.1", at.getsockname()[1], protected=False)
        assert "\n" not in str(caught.value)


def test_an_idle_connection_outlives_the_patience_of_a_client(monkeypatch):
    # Both at five seconds, a client sends into a connection that the server is just closing.
    kept: list[float] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: kept.append(self.config.timeout_keep_alive))
    with listen("127.0.0.1", 0, protected=False) as at:
        run(object(), at)
    patience = httpx.Limits().keepalive_expiry
    assert patience is not None and kept[0] > patience
