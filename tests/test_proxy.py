"""The way out of the environment's proxies."""

from __future__ import annotations

import pytest
from yarl import URL

from claw import proxy

NAMES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("environ", "url", "expected"),
    [
        ({}, "https://api.dingtalk.com/x", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.dingtalk.com/x", "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128"}, "https://api.dingtalk.com/x", "http://proxy:3128"),
        ({"HTTPS_PROXY": "proxy:3128"}, "https://api.dingtalk.com", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://me:p%40ss@proxy:3128"}, "https://a.example", "http://me:p%40ss@proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://model:8000/v1", None),
        ({"HTTP_PROXY": "http://proxy:3128"}, "http://model:8000/v1", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "model,.example"}, "http://model:8000/v1", None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "model,.example"}, "http://a.example/v1", None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, "http://a.example/v1", None),
        ({"HTTP_PROXY": ""}, "http://a.example/v1", None),
    ],
)
def test_way(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str, expected: str | None) -> None:
    """The proxy is by the address's scheme, and NO_PROXY names who is reached directly."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert proxy.proxy_of(URL(url)) == (None if expected is None else URL(expected))


def test_a_wrong_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is no address raises ValueError, which every caller tells as its own failure."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:port")
    with pytest.raises(ValueError, match="port"):
        proxy.proxy_of(URL("https://a.example"))


def test_each_host_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a host is looked up once: what the environment says later does not hold."""
    monkeypatch.setenv("HTTP_PROXY", "http://one:1")
    assert proxy.proxy_of(URL("http://a.example")) == URL("http://one:1")
    monkeypatch.setenv("HTTP_PROXY", "http://two:2")
    assert proxy.proxy_of(URL("http://a.example/other")) == URL("http://one:1")
    proxy.forget()
    assert proxy.proxy_of(URL("http://a.example")) == URL("http://two:2")
