"""Foreign variables: what would send keys, talk or trust elsewhere is refused by name, the rest warned about."""

from __future__ import annotations

from pathlib import Path

import pytest

from claw.config.files import environment, read_secret_file
from claw.config.reader import load
from claw.errors import SettingsError
from claw.secret import Secret
from tests.config.test_settings import LEAST, problems


@pytest.mark.parametrize("name", ["OPENAI_API_BASE", "OPENAI_BASE", "OPENAI_API_URL", "OPENAI_API_HOST"])
def test_an_old_name_of_the_server_is_refused(name: str) -> None:
    """A server named by an old name would be passed over, and another company get the key: refused by name."""
    (problem,) = problems(**{name: "https://hidden.example/v1"})
    assert problem.startswith(f"{name}: ")
    assert "OPENAI_BASE_URL" in problem
    assert "hidden" not in problem
    (warning,) = load(LEAST | {name: "https://x.example", "OPENAI_BASE_URL": "https://y.example/v1"}).warnings
    assert warning.startswith(f"{name} is not read")


@pytest.mark.parametrize(("name", "near"), [("OPENAI_MODLE", "OPENAI_MODEL"), ("OPENAI_APIKEY", "OPENAI_API_KEY")])
def test_a_near_name_is_warned_about(name: str, near: str) -> None:
    """A misspelt name of the model's settings has no effect, and says so."""
    (warning,) = load(LEAST | {name: "hidden"}).warnings
    assert warning == f"{name} is not read and has no effect; did you mean {near}?"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("text", ["socks5://me:hidden@proxy:1080", "ftp://proxy", "http://proxy:port"])
def test_a_proxy_that_cannot_be_used_is_refused(name: str, text: str) -> None:
    """A proxy that claw cannot speak to ends at the start, with what is right and without its password."""
    (problem,) = problems(**{name: text})
    assert problem.startswith(f"{name}: its value is not usable; right would be an http://")
    assert "hidden" not in problem
    assert ("SOCKS" in problem) == text.startswith("socks")


def test_ca_files_must_be_there(tmp_path: Path) -> None:
    """A CA setting that names nothing is refused; one that claw does not read is warned about."""
    assert "SSL_CERT_FILE: names no file" in problems(SSL_CERT_FILE=str(tmp_path / "none.pem"))[0]
    assert "SSL_CERT_DIR: names no folder" in problems(SSL_CERT_DIR="/nowhere:/neither")[0]
    assert load(LEAST | {"SSL_CERT_DIR": f"/nowhere:{tmp_path}"}).warnings == ()
    (warning,) = load(LEAST | {"REQUESTS_CA_BUNDLE": "/x.pem"}).warnings
    assert warning.startswith("REQUESTS_CA_BUNDLE is not read")
    assert load(LEAST | {"REQUESTS_CA_BUNDLE": "/x.pem", "SSL_CERT_DIR": str(tmp_path)}).warnings == ()


def test_foreign_values_are_stripped() -> None:
    """Line ends and byte order marks of copied values never reach the libraries that read these variables."""
    given = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318\n",
        "HTTPS_PROXY": " http://p:1 ",
        "SSL_CERT_FILE": "\ufeff/a",
    }
    found = environment({**given, "OTHER": " kept ", "KUBERNETES_SERVICE_HOST": "x"})
    assert found["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://c:4318"
    assert found["HTTPS_PROXY"] == "http://p:1"
    assert found["SSL_CERT_FILE"] == "/a"
    assert found["OTHER"] == " kept "


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "DINGTALK_CLIENT_SECRET", "CLAW_ADMIN_TOKEN"])
@pytest.mark.parametrize(
    ("value", "found"), [("sk-abc\u200bdef", "U+200B"), ("sk-\u4e2d", "U+4E2D"), ("sk-a\u00a0b", "U+00A0")]
)
def test_invisible_characters_are_named(name: str, value: str, found: str) -> None:
    """A secret with a character that no server takes is refused by variable and code point, without its value."""
    (problem,) = problems(**{name: value})
    assert problem.startswith(f"{name}: its value is not usable")
    assert found in problem
    assert "sk-" not in problem


@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_are_warned_about(quote: str) -> None:
    """Quotes that `docker --env-file` keeps are told by the variable's name."""
    (warning,) = load(LEAST | {"OPENAI_API_KEY": f"{quote}sk-abc{quote}"}).warnings
    assert warning.startswith("OPENAI_API_KEY: its value begins and ends with")
    assert "sk-abc" not in warning


def test_a_byte_order_mark_is_no_part_of_a_value(tmp_path: Path) -> None:
    """A mark that an editor wrote before a value, in the environment or in a file, is dropped."""
    file = tmp_path / "key"
    file.write_bytes(b"\xef\xbb\xbfsk-abc\r\n")
    assert read_secret_file(file) == "sk-abc"
    assert load(LEAST | {"OPENAI_API_KEY": "\ufeffsk-abc"}).model.api_key == Secret("sk-abc")


@pytest.mark.parametrize("value", ["sk-proj-abcdefghijklmnop", "c2VjcmV0/a2V5"])
def test_a_secret_in_place_of_a_path_is_not_shown(value: str) -> None:
    """Whoever writes the key where its file's path belongs does not find it in the log."""
    without = {name: text for name, text in LEAST.items() if name != "OPENAI_API_KEY"}
    with pytest.raises(SettingsError) as caught:
        load(without | {"OPENAI_API_KEY_FILE": value})
    assert value not in str(caught.value)
    assert "OPENAI_API_KEY_FILE: its value (not shown" in str(caught.value)


def test_key_and_token_follow_their_files(tmp_path: Path) -> None:
    """Key and token are read again from their files; a file that went bad changes nothing, and brings none back."""
    key, token = tmp_path / "key", tmp_path / "token"
    key.write_text("sk-one")
    token.write_text("token-one")
    without = {name: text for name, text in LEAST.items() if name != "OPENAI_API_KEY"}
    settings = load(without | {"OPENAI_API_KEY_FILE": str(key), "CLAW_ADMIN_TOKEN_FILE": str(token)})
    key.write_text("sk-two\n")
    token.write_text("token-two")
    assert settings.model.read_api_key() == Secret("sk-two")
    assert settings.http.read_admin_token() == Secret("token-two")
    key.write_text("with blank")
    token.unlink()
    assert settings.model.read_api_key() == Secret("sk-two"), "never an older one"
    assert settings.http.read_admin_token() == Secret("token-two")
