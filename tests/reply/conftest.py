"""The replies' tests talk to the same small DingTalk as those of its API."""

from tests.dingtalk.conftest import calls, clock, dingtalk, http, openapi, spans, webhook

__all__ = ["calls", "clock", "dingtalk", "http", "openapi", "spans", "webhook"]
