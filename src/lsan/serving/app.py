"""The endpoints."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lsan.answers import Recommendations
from lsan.errors import ConfigError
from lsan.runtime import Recommender
from lsan.runtime.recommender import cores
from lsan.serving.direct import Direct
from lsan.serving.docs import make_docs
from lsan.serving.gate import Gate
from lsan.serving.messages import (
    Alive,
    Answer,
    BatchAnswer,
    BatchQuestion,
    ItemsAnswer,
    ItemsQuestion,
    Question,
    Ready,
    SimilarAnswer,
    SimilarQuestion,
)
from lsan.serving.metrics import CONTENT_TYPE
from lsan.serving.model import to_json
from lsan.serving.openapi import describe, problems
from lsan.serving.pages import Page
from lsan.serving.problems import MEDIA_TYPE, ProblemError, invalid, overloaded, problem_of
from lsan.serving.service import Service

#: Most requests that wait for a thread.
_WAITING = 16

_ANY = ("internal", "overloaded")
_BODY = ("not-json", "bad-request", "too-slow", "body-too-large", "wrong-media-type", "invalid", *_ANY)


def make_app(service: Service) -> ASGIApp:
    """All endpoints, behind the gate."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    endpoints = Endpoints(service)
    direct: dict[str, tuple[Callable[[Any], Awaitable[bytes]], Any]] = {
        "/v1/recommend": (endpoints.recommend, Answer),
        "/v1/recommend:batch": (endpoints.recommend_batch, BatchAnswer),
    }
    for path, (endpoint, model) in direct.items():
        app.router.add_api_route(path, endpoint, methods=["POST"], response_model=model, responses=problems(*_BODY))
    gets: Sequence[tuple[str, Callable[..., Any], Any, Sequence[str]]] = (
        ("/v1/items", endpoints.items, ItemsAnswer, ("invalid", *_ANY)),
        ("/v1/similar", endpoints.similar, SimilarAnswer, ("invalid", "unknown-item", *_ANY)),
        ("/healthz", endpoints.alive, Alive, ("internal",)),
        ("/readyz", endpoints.ready, Ready, ("internal", "stopping")),
    )
    for path, endpoint, model, kinds in gets:
        app.router.add_api_route(path, endpoint, methods=["GET"], response_model=model, responses=problems(*kinds))
    app.router.add_api_route(
        "/metrics", endpoints.metrics, methods=["GET"], response_class=Response,
        responses={200: {"description": "Figures", "content": {"text/plain": {}}}, **problems(*_ANY)},
    )  # fmt: skip
    document = to_json(describe(app, keys=service.keys is not None))

    async def openapi() -> Response:
        return _json(document)

    app.router.add_api_route("/openapi.json", openapi, methods=["GET"], include_in_schema=False)
    for route in [route for route in app.routes if isinstance(route, APIRoute) and route.methods == {"GET"}]:
        app.router.add_api_route(route.path, route.endpoint, methods=["HEAD"], include_in_schema=False)
    docs = make_docs()
    app.router.default = Pages(service, docs)
    for kind in (ProblemError, HTTPException, RequestValidationError, ConfigError, Exception):
        app.add_exception_handler(kind, _refused)
    return Gate(
        app,
        service,
        direct={path: Direct(endpoint) for path, (endpoint, _) in direct.items()},
        routes=frozenset(docs).union(route.path for route in app.routes if isinstance(route, APIRoute)),
    )


class Endpoints:
    """What is done for each path. Single recommendations are made in the event loop, since handing one to a thread
    would take longer; all else that takes time goes to a thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._cores = max(1, cores() // service.settings.workers)
        self._waiting = 0

    async def recommend(self, question: Question) -> bytes:
        """The k best next items after a history."""
        if question.times is not None and len(question.times) != len(question.history):
            raise invalid(
                "#/times", f"an array of {len(question.times)}", f"one of {len(question.history)}, as history"
            )
        model = self._service.model
        answer = model.recommender.recommend(
            question.history,
            question.k,
            times=question.times,
            at=question.at,
            exclude_seen=question.exclude_seen,
            filter=None if question.filter is None else question.filter.for_recommender(),
        )
        self._service.metrics.histories(1, by_popularity=answer.by_popularity, unknown=len(answer.unknown_ids))
        return model.answer(answer)

    async def recommend_batch(self, batch: BatchQuestion) -> bytes:
        """The k best next items after each of several histories."""
        lengths = [len(history) for history in batch.histories]
        if batch.times is not None and [len(times) for times in batch.times] != lengths:
            raise invalid("#/times", "arrays of other lengths", "an array for each of the histories, as long as it")
        model = self._service.model

        def work() -> tuple[Sequence[Recommendations], bytes]:
            answers = self._answers(model.recommender, batch)
            return answers, model.batch_answer(answers)

        answers: Sequence[Recommendations]
        body: bytes
        answers, body = await self._aside(work)
        self._service.metrics.histories(
            len(answers),
            by_popularity=sum(answer.by_popularity for answer in answers),
            unknown=sum(len(answer.unknown_ids) for answer in answers),
        )
        return body

    def _answers(self, recommender: Recommender, batch: BatchQuestion) -> Sequence[Recommendations]:
        if batch.filter is None:
            return recommender.recommend_many(
                batch.histories, batch.k, times=batch.times, at=batch.at, exclude_seen=batch.exclude_seen,
                threads=self._cores,
            )  # fmt: skip
        chosen = batch.filter.for_recommender()
        every = [None] * len(batch.histories) if batch.times is None else batch.times
        return [
            recommender.recommend(
                history, batch.k, times=times, at=batch.at, exclude_seen=batch.exclude_seen, filter=chosen
            )
            for history, times in zip(batch.histories, every, strict=True)
        ]

    async def items(self, asked: Annotated[ItemsQuestion, Query()]) -> Response:
        """Items by the beginnings of words of their titles, or by their id; the most popular ones without a query."""
        model = self._service.model
        found = await self._aside(lambda: model.recommender.search(asked.query, asked.k))
        return _json(model.items_answer([asdict(item) for item in found]))

    async def similar(self, asked: Annotated[SimilarQuestion, Query()]) -> Response:
        """The items whose vectors point most nearly the same way as an item's."""
        model = self._service.model
        if not model.recommender.index_of(asked.item):
            raise ProblemError("unknown-item", "name an item of the model; /v1/items finds them by title")
        found = await self._aside(lambda: model.recommender.similar(asked.item, asked.k))
        return _json(model.items_answer([asdict(item) for item in found]))

    async def alive(self) -> Response:
        """Whether the process answers."""
        return _json(to_json({"status": "alive"}))

    async def ready(self) -> Response:
        """Whether requests should be sent here, and what is being served."""
        if self._service.stopping:
            raise ProblemError("stopping", "ask another instance", headers={"Retry-After": "1"})
        model = self._service.model
        engine = model.recommender.engine
        return _json(
            to_json(
                {
                    "model": model.version, "items": engine.items, "history": engine.history, "timed": engine.timed,
                    "engine": engine.instruction_set,
                }
            )
        )  # fmt: skip

    async def metrics(self) -> Response:
        """Figures for Prometheus."""
        return Response(await self._aside(self._service.metrics.text), media_type=CONTENT_TYPE)

    async def _aside(self, work: Callable[[], Any]) -> Any:
        """Do it in a thread. Raises `ProblemError` when too much waits already."""
        if self._waiting >= _WAITING:
            raise overloaded(f"{_WAITING} requests that take long are waiting")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._service.threads, work)
        finally:
            self._waiting -= 1


class Pages:
    """The page, the documentation, and what is at no address at all."""

    def __init__(self, service: Service, docs: Mapping[str, Page]) -> None:
        self._service, self._docs = service, docs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a file of the page or of the documentation."""
        path = scope["path"]
        page = self._service.model.pages.get(path) or self._docs.get(path)
        if page is None:
            raise ProblemError("not-found", "/docs and /openapi.json tell what there is")
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        known = dict(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        unchanged = page.tag in [tag.strip().removeprefix("W/") for tag in known.split(",")]
        response = Response(status_code=304) if unchanged else Response(page.body)
        response.headers.update(page.headers)
        await response(scope, receive, send)


async def _refused(_request: Request, error: Exception) -> Response:
    """The answer to a request that ended in an error."""
    problem = problem_of(error)
    return Response(problem.body, problem.status, problem.headers, MEDIA_TYPE)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
