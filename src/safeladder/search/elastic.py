"""An OpenSearch or Elasticsearch cluster as a retriever, for those who outgrow one machine or have one already.

The `_search` and `_doc` calls that both share:
https://docs.opensearch.org/latest/api-reference/search-apis/search/ and
https://docs.opensearch.org/latest/api-reference/document-apis/get-documents/
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from safeladder.search.retriever import QUERY_CHARACTERS, Document, Hit, RetrievalFault, abstract_of
from safeladder.search.transport import ATTEMPTS, TIMEOUT, JsonClient, field, number
from safeladder.types import SafeladderError


class ElasticRetriever:
    """One index of a cluster. A page's id is the document's `_id`; its title and text are two of its fields."""

    def __init__(
        self,
        url: str,
        index: str,
        *,
        title_field: str = "title",
        text_field: str = "text",
        authorization: str | None = None,
        timeout: float = TIMEOUT,
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`authorization`: the header as it is sent, such as ``ApiKey …`` or ``Basic …``.

        Raises:
            SafeladderError: `url` is no address, or the cluster has no such index (on first use).
        """
        headers = {"authorization": authorization} if authorization else {}
        self._client = JsonClient(url, headers=headers, timeout=timeout, attempts=attempts, sleep=sleep)
        self._index = quote(index, safe="")
        self._title, self._text = title_field, text_field

    def search(self, query: str, k: int) -> list[Hit]:
        """The cluster's own ranking over both fields. A reply of some shards only is a fault, not a short list."""
        if k < 1:
            return []
        path = f"/{self._index}/_search"
        what = self._client.url + path
        body = {
            "query": {
                "multi_match": {
                    "query": query[:QUERY_CHARACTERS],
                    "fields": [self._title, self._text],
                    "type": "most_fields",
                }
            },
            "size": k,
            "_source": [self._title, self._text],
        }
        status, reply = self._client.request("POST", path, body)
        if status == 404:
            raise SafeladderError(f"{what}: the cluster has no such index")
        failed = field(field(reply, "_shards", dict, what), "failed", int, what)
        if field(reply, "timed_out", bool, what) or failed:
            raise RetrievalFault(f"{what}: a partial reply ({failed} shards failed)")
        rows = field(field(reply, "hits", dict, what), "hits", list, what)
        return [self._hit(row, what) for row in rows[:k]]

    def read(self, id: str) -> Document | None:
        """The document with this `_id`."""
        if not id:
            return None
        path = f"/{self._index}/_doc/{quote(id.encode('utf-8', 'replace'), safe='')}"
        what = self._client.url + path
        status, reply = self._client.request("GET", path)
        if status == 404 and (not isinstance(reply, dict) or reply.get("found") is not False):
            raise SafeladderError(f"{what}: the cluster has no such index")
        if not field(reply, "found", bool, what):
            return None
        source = field(reply, "_source", dict, what)
        return Document(
            id=field(reply, "_id", str, what),
            title=field(source, self._title, str, what),
            text=field(source, self._text, str, what),
        )

    def _hit(self, row: Any, what: str) -> Hit:
        source = field(row, "_source", dict, what)
        return Hit(
            id=field(row, "_id", str, what),
            title=field(source, self._title, str, what),
            abstract=abstract_of(field(source, self._text, str, what)),
            score=number(row, "_score", what),
        )
