"""Cards, reactions and uploads: what is sent, and what DingTalk's answers mean."""

from __future__ import annotations

import pytest
from aiohttp import web

from claw.dingtalk.cards import CardClient, CardPlace
from claw.dingtalk.openapi import OpenApiClient
from claw.dingtalk.reactions import ReactionClient
from claw.dingtalk.upload import UPLOAD_MAX_BYTES, UploadClient, UploadKind
from claw.errors import DingTalkError
from claw.errors import DingTalkReason as Reason
from claw.messages import ChatKind
from tests.dingtalk.conftest import TOKEN, FakeDingTalk, inbound

CREATE_PATH = "/v1.0/card/instances/createAndDeliver"
STREAM_PATH = "/v1.0/card/streaming"
UPDATE_PATH = "/v1.0/card/instances"
REACT_PATH = "/v1.0/robot/emotion/reply"
UPLOAD_PATH = "/media/upload"
SHOWN = {"success": True, "result": {"deliverResults": [{"success": True, "carrierId": "carrier1"}]}}
DONE = {"success": True, "result": True}


@pytest.fixture
def cards(openapi: OpenApiClient) -> CardClient:
    return CardClient(openapi, "tpl.schema")


def place(kind: ChatKind) -> CardPlace:
    about = inbound(kind=kind)
    return CardPlace(about.robot_code, about.conversation, about.sender)


async def test_a_card_is_made_with_its_text(cards: CardClient, dingtalk: FakeDingTalk) -> None:
    """A card that is made empty may stay blank; its buttons come back over the stream; its receipt is returned."""
    dingtalk.will(CREATE_PATH, (200, SHOWN), (200, SHOWN))
    assert await cards.create("trk-1", place(ChatKind.GROUP), {"content": "so far"}) == "carrier1"
    await cards.create("trk-2", place(ChatKind.DIRECT), {"content": "so far"})
    group, direct = (request.json for request in dingtalk.to(CREATE_PATH))
    assert (group["openSpaceId"], direct["openSpaceId"]) == (
        "dtv1.card//IM_GROUP.cidFakeGroup00==",
        "dtv1.card//IM_ROBOT.u-1001",
    )
    assert group["cardData"] == {"cardParamMap": {"content": "so far"}}
    assert group["callbackType"] == "STREAM"
    # Who asked in a group is told of it.
    assert group["imGroupOpenDeliverModel"] == {"robotCode": "dingfakeclient", "atUserIds": {"u-1001": "Ann"}}


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (
            200,
            {"success": True, "result": {"deliverResults": [{"success": False, "errorMsg": "x"}]}},
            Reason.CARD_NOT_SHOWN,
        ),
        (400, {"code": "param.templateNotExist"}, Reason.CARD_TEMPLATE),
        (400, {"code": "param.templateUnpublished"}, Reason.CARD_TEMPLATE),
        (400, {"code": "param.openSpaceIdInvalid"}, Reason.CARD_NOT_SHOWN),
        (400, {"code": "param.contentUnsafe"}, Reason.CONTENT_REFUSED),
        (403, {"code": "Forbidden.AccessDenied.AccessTokenPermissionDenied"}, Reason.NO_PERMISSION),
        (403, {"code": "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi"}, Reason.QPS),
        (403, {"code": "Forbidden.AccessDenied.ApiCountLimitForOrg"}, Reason.QUOTA_EXHAUSTED),
        (500, {"code": "system.busy"}, Reason.SERVER_BUSY),
    ],
)
async def test_why_a_card_was_not_made(
    cards: CardClient, dingtalk: FakeDingTalk, status: int, body: object, reason: Reason
) -> None:
    """Each refusal has its reason; a 403 is a permission, a second's limit or a month's, by its code."""
    dingtalk.will(CREATE_PATH, (status, body))
    with pytest.raises(DingTalkError) as raised:
        await cards.create("trk-1", place(ChatKind.GROUP), {})
    assert raised.value.reason is reason


async def test_a_step_holds_the_whole_text(cards: CardClient, dingtalk: FakeDingTalk) -> None:
    """Markdown variables take the full text each time; the last step ends the card; an update names its values only."""
    dingtalk.will(STREAM_PATH, (200, DONE), (200, DONE))
    dingtalk.will(UPDATE_PATH, (200, DONE))
    await cards.stream("trk-1", "content", "one", "guid-1")
    await cards.stream("trk-1", "content", "one two", "guid-2", final=True)
    await cards.update("trk-1", {"content": "one two"})
    first, last = (request.json for request in dingtalk.to(STREAM_PATH))
    assert (first["isFull"], first["isFinalize"], last["isFinalize"]) == (True, False, True)
    assert dingtalk.to(UPDATE_PATH)[0].json["cardUpdateOptions"] == {"updateCardDataByKey": True}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("param.stream.content", Reason.TOO_LONG),
        ("param.stream.outTrackId", Reason.CARD_GONE),
        ("param.cardNotExist", Reason.CARD_GONE),
        ("param.cardAlreadyExist", Reason.CARD_EXISTS),
        ("param.stream.contentEmpty", Reason.BAD_REQUEST),
    ],
)
async def test_why_a_step_was_not_taken(cards: CardClient, dingtalk: FakeDingTalk, code: str, reason: Reason) -> None:
    """Too long a text and a card that is gone are told apart."""
    dingtalk.will(STREAM_PATH, (400, {"code": code}))
    with pytest.raises(DingTalkError) as raised:
        await cards.stream("trk-1", "content", "one", "guid-1")
    assert raised.value.reason is reason


async def test_a_reaction_names_its_message(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """It goes to the message by DingTalk's own id; an answer that says nothing is taken for success."""
    await ReactionClient(openapi).add(inbound(kind=ChatKind.GROUP), "👀")
    body = dingtalk.to(REACT_PATH)[0].json
    assert (body["openMsgId"], body["openConversationId"]) == ("msgFakeOne000==", "cidFakeGroup00==")
    assert body["emotionName"] == body["textEmotion"]["text"] == "👀"


async def test_an_upload_gives_a_media_id(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """The file goes as a form; the token, in the address as the old API wants it, is in no error."""
    seen: dict[str, object] = {}

    async def take(request: web.Request) -> web.StreamResponse:
        seen.update(request.query)
        return web.json_response({"errcode": 0, "media_id": "@media1"})

    dingtalk.will(UPLOAD_PATH, take, (200, {"errcode": 40014}), (200, {"errcode": 40014, "errmsg": "no"}))
    uploads = UploadClient(openapi, dingtalk.url)
    assert await uploads.upload(UploadKind.IMAGE, "猫.png", b"png", "image/png") == "@media1"
    assert seen == {"type": "image", "access_token": TOKEN}
    raw = dingtalk.to(UPLOAD_PATH)[0].raw
    assert b'name="media"' in raw
    assert b"png" in raw
    with pytest.raises(DingTalkError) as raised:
        await uploads.upload(UploadKind.IMAGE, "b.png", b"png", "image/png")
    assert raised.value.reason is Reason.TOKEN_INVALID
    assert TOKEN not in f"{raised.value!r} {raised.value}"


async def test_what_is_too_large_is_not_uploaded(openapi: OpenApiClient, dingtalk: FakeDingTalk) -> None:
    """A refusal that is known beforehand costs no call."""
    with pytest.raises(DingTalkError):
        await UploadClient(openapi, dingtalk.url).upload(UploadKind.FILE, "a", bytes(UPLOAD_MAX_BYTES + 1), "x/y")
    assert not dingtalk.to(UPLOAD_PATH)
