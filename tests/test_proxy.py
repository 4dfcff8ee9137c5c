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
        ({"ALL_PROXY": "http://proxy:3128"}, "https://a.example", "http://proxy:3128"),
        ({"ALL_PROXY": "http://proxy:3128", "HTTPS_PROXY": "http://other:1"}, "https://a.example", "http://other:1"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "wss://a.example", "http://proxy:3128"),
        ({"HTTPS_PROXY": "https://proxy"}, "https://a.example", "https://proxy"),
        ({"http_proxy": "http://low:1", "HTTP_PROXY": "http://high:1"}, "http://a.example", "http://low:1"),
        ({"HTTP_PROXY": " http://proxy:3128\n"}, "http://a.example", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3:8000", None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.0/8"}, "http://11.1.2.3", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "10.0.0.0/8"}, "http://ten.example", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "fd00::/8, ::1"}, "http://[fd00::5]:8000", None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "fd00::/8 ::1"}, "http://[::1]:8000", None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "[::1]:80"}, "http://[::1]:8000", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "model:8000"}, "http://model:8000", None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "model:8000"}, "http://model:9000", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}, "http://a.example.com", None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "*.Example.com"}, "http://A.example.COM.", None),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "ample.com"}, "http://a.example.com", "http://proxy:3128"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": ",,10.0.0.0/99,:"}, "http://a.example", "http://proxy:3128"),
    ],
)
def test_way(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], url: str, expected: str | None) -> None:
    """The proxy is by the address's scheme, and NO_PROXY names who is reached directly."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert proxy.proxy_of(URL(url)) == (None if expected is None else URL(expected))


@pytest.mark.parametrize("text", ["http://proxy:port", "ftp://proxy:1", "http://", "socks5://proxy:1080", "a b:1"])
def test_a_wrong_setting_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A proxy that is no HTTP proxy raises ValueError with what is right, never with a password in it."""
    monkeypatch.setenv("HTTPS_PROXY", text.replace("://", "://me:pass@"))
    with pytest.raises(ValueError, match="an http:// or https:// address") as caught:
        proxy.proxy_of(URL("https://a.example"))
    assert "pass@" not in str(caught.value)


def test_each_host_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a host is looked up once: what the environment says later does not hold."""
    monkeypatch.setenv("HTTP_PROXY", "http://one:1")
    assert proxy.proxy_of(URL("http://a.example")) == URL("http://one:1")
    monkeypatch.setenv("HTTP_PROXY", "http://two:2")
    assert proxy.proxy_of(URL("http://a.example/other")) == URL("http://one:1")
    proxy.forget()
    assert proxy.proxy_of(URL("http://a.example")) == URL("http://two:2")
