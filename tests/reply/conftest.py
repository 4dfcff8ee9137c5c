"""The replies' tests talk to the same small DingTalk as those of its API."""

from tests.dingtalk.conftest import calls, client, clock, dingtalk, http, make_client, openapi, spans, webhook

__all__ = ["calls", "client", "clock", "dingtalk", "http", "make_client", "openapi", "spans", "webhook"]
