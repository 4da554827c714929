"""How cookies are set: for this server alone, and over HTTPS alone where that is used."""

from flask import Request, Response

__all__ = ["keep_cookie"]


def keep_cookie(response: Response, asked: Request, name: str, value: str, seconds: int) -> None:
    """Have the browser keep a value under the path of this server, out of reach of scripts."""
    response.set_cookie(
        name,
        value,
        path=asked.script_root or "/",
        max_age=seconds,
        httponly=True,
        samesite="Strict",
        secure=asked.is_secure,
    )
