"""Connections, and what the server itself answers on them."""

from typing import Any

from flask import Request
from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from .bodies import REFUSED, Parser
from .problems import Problem

__all__ = ["Channel"]


class Task(WSGITask):
    """A request that the app answers, also where the server has refused it."""

    def execute(self) -> None:
        if self.request.error:
            self.set_close_on_finish()  # the rest of it is not read
        super().execute()

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if error := self.request.error:
            if not isinstance(error, Problem):
                error = Problem(error.code, error.reason, str(error.body))
            environ[REFUSED] = error
        return environ


class Channel(HTTPChannel):
    """A connection."""

    task_class = error_task_class = Task
    request: Any  # the one that is arriving

    def parser_class(self, adj: Any) -> Parser:
        return Parser(adj, self)

    def refusal(self, request: Parser) -> Problem | None:
        """Why the app will not answer a request whose headers are here."""
        try:
            self.server.guard(Request(Task(self, request).get_environment()))
        except Problem as problem:
            return problem
        return None

    def refuse(self, problem: Problem) -> None:
        """Answer the request that is arriving by a problem, and read no more of it."""
        with self.requests_lock:
            request, self.request = self.request, None
            request.error, request.completed = problem, True
            self.requests.append(request)
            if len(self.requests) == 1:  # else the task before it goes on with it
                self.server.add_task(self)
