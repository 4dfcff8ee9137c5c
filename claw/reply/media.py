"""Pictures and files of an answer: brought to where the person can see them, before the answer is sent.

Order of events: the text is searched (references.py). What it names, each thing once and a bounded number of them, is
decoded or fetched (fetching.py), told by its first bytes (formats.py), made one that DingTalk takes, and uploaded;
three at a time, all of it within a limit of time. The text then shows pictures by their `mediaId`; files become content
of their own behind it. An answer that is too long for its messages becomes a file as a whole beside its first ones.

The caller keeps the settled answer before anything of it is sent, so that nothing is uploaded twice, and a retry finds
the same deliveries. What could not be brought leaves a link or a word in its place: no failure here is one of the turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from claw.budget import ByteBudget
from claw.dingtalk.upload import UPLOAD_MAX_BYTES, UploadClient, UploadKind
from claw.errors import DingTalkError, DingTalkReason, MediaError, MediaProblem
from claw.files.reader import FileReader
from claw.language import Language
from claw.messages import (
    Answer,
    ChatKind,
    Content,
    Exchange,
    FileRole,
    Inbound,
    Markdown,
    MediaState,
    Outcome,
    SentFile,
)
from claw.reply.fetching import LinkFetcher, OpenFetcher
from claw.reply.formats import Parcel, PictureFormat, decode_data, detect_picture, make_parcel, mime_of, pack
from claw.reply.media_words import (
    WHOLE_NAME,
    Hindrance,
    say_hindrance,
    shorten_embedded,
    show_file,
    show_inline,
)
from claw.reply.plan import Planner
from claw.reply.references import FILE_ENDS, FILE_NAME, Place, Reference, end_of, find_references

CARRIED_MAX: Final = 9
"""Pictures and files of one answer: each costs a call of the month's quota."""
AT_ONCE: Final = 3
SETTLE_TIMEOUT_S: Final = 30.0
"""Seconds for all of them: the person waits meanwhile for words that are ready."""
HELD_MAX_BYTES: Final = 48 * 1024 * 1024
"""Bytes of pictures and files that are held for all answers at the same time."""
UPLOAD_TRIES: Final = 2
_CARRYING: Final = frozenset({Outcome.ANSWERED, Outcome.FAILED})
"""Answers with words of a model: a command's own are ours."""
_HINTS: Final = ("data:", "](", "<img", "MEDIA:", "[IMAGE:", "[FILE:", "[AUDIO:", "[VIDEO:", "file:", "sandbox:")
"""Without one of these, or `://`, there is nothing to find: nearly all answers are spared the search."""
_FINAL: Final = frozenset(
    {
        DingTalkReason.NO_PERMISSION,
        DingTalkReason.QUOTA_EXHAUSTED,
        DingTalkReason.CREDENTIALS,
        DingTalkReason.IP_NOT_ALLOWED,
        DingTalkReason.ROBOT_STOPPED,
    }
)
"""Refusals of uploads that hold for the next one, too."""
_BY_PROBLEM: Final = {
    MediaProblem.NOT_ALLOWED: Hindrance.NOT_ALLOWED,
    MediaProblem.TOO_LARGE: Hindrance.TOO_LARGE,
    MediaProblem.TOO_SLOW: Hindrance.LATE,
    MediaProblem.BUSY: Hindrance.LATE,
    MediaProblem.DAMAGED: Hindrance.DAMAGED,
    MediaProblem.NO_PICTURE: Hindrance.UNSUPPORTED,
    MediaProblem.UNSUPPORTED: Hindrance.UNSUPPORTED,
    MediaProblem.TOO_COSTLY: Hindrance.TOO_LARGE,
}

log: Final = logging.getLogger(__name__)

T = TypeVar("T")
MayUpload = Callable[[], Awaitable[bool]]
"""Whether the month's calls allow for uploads beside plain answers."""


@dataclass(frozen=True, slots=True)
class _Picture:
    """An uploaded picture."""

    media_id: str


@dataclass(frozen=True, slots=True)
class _File:
    """An uploaded file, and the name by which the text speaks of it."""

    sent: SentFile
    name: str


_Result = _Picture | _File | Hindrance


@dataclass(slots=True)
class _Work:
    """What is being done for one answer."""

    fetcher: OpenFetcher
    files_left: int
    """Messages that may still be spent on files."""
    no_file: Hindrance
    """What is said of a file beyond these."""
    done: dict[str, _Result] = field(default_factory=dict)
    """By target: what is named twice is brought once."""
    closed: Hindrance | None = None
    """Why nothing more is uploaded."""


class MediaSettler:
    """Settles answers. `max_parts` is CLAW_ANSWER_MAX_PARTS; `language` is of people who do not show theirs."""

    def __init__(
        self,
        uploads: UploadClient,
        fetcher: LinkFetcher,
        reader: FileReader,
        planner: Planner,
        budget: ByteBudget,
        *,
        may_upload: MayUpload | None = None,
        timeout_s: float = SETTLE_TIMEOUT_S,
    ) -> None:
        """`budget`: of bytes, the same as the fetcher's."""
        self._uploads = uploads
        self._fetcher = fetcher
        self._reader = reader
        self._planner = planner
        self._budget = budget
        self._may_upload = may_upload
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="claw.reply.media")
        self._told: set[DingTalkReason] = set()
        """Lasting refusals that the operator was told of, since the last upload that worked."""

    async def settle(self, inbound: Inbound, answer: Answer) -> Answer:
        """Return the answer as it is to be sent; the same object where there was nothing to do. Raises nothing."""
        # One that is on its way keeps its deliveries, whoever planned them.
        if answer.media is MediaState.SETTLED or answer.sent or answer.outcome not in _CARRYING:
            return answer
        found = [await self._find(each) for each in answer.content]
        is_cut = await self._planner.is_cut(inbound, answer)
        if not any(found) and not is_cut:
            return answer
        language = self._planner.detect(inbound)
        budget_allows = self._may_upload is None or await self._may_upload()
        async with self._fetcher.open() as fetcher:
            can_send = inbound.conversation.kind is ChatKind.GROUP or bool(inbound.sender.staff_id)
            work = _Work(
                fetcher,
                files_left=self._planner.max_parts - 1 if can_send else 0,
                no_file=Hindrance.TOO_MANY if can_send else Hindrance.NO_WAY,
            )
            if not budget_allows:
                work.closed = Hindrance.BUDGET
            await self._carry([each for references in found for each in references], work)
            content, files = _rewrite(answer.content, found, work.done, language)
            settled = replace(answer, content=(*content, *files), media=MediaState.SETTLED)
            # Planned anew: without its data the text may fit, and files take messages of their own.
            if work.files_left > 0 and await self._planner.is_cut(inbound, settled):
                settled = await self._add_whole(settled, answer, found, work, language)
        _log(work.done)
        return replace(settled, exchange=await self._shorten_history(answer))

    async def _find(self, content: Content) -> list[Reference]:
        if not isinstance(content, Markdown) or not any(each in content.text for each in (*_HINTS, "://")):
            return []
        return await self._run(find_references, content.text)

    async def _run(self, act: Callable[..., T], *arguments: object) -> T:
        """Do what takes more than a moment in a thread: one for all answers, since it is the interpreter's time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, act, *arguments)

    # --- bringing ------------------------------------------------------------------------------------------------

    async def _carry(self, references: Sequence[Reference], work: _Work) -> None:
        """Bring what can be brought; `work.done` tells of each target what became of it."""
        wanted: dict[str, Reference] = {}
        for each in references:
            if each.place is Place.LOCAL:
                work.done[each.target] = Hindrance.LOCAL
            elif each.place is Place.CUT:
                work.done[each.target] = Hindrance.DAMAGED
            elif len(wanted) < CARRIED_MAX or each.target in wanted:
                wanted.setdefault(each.target, each)
            else:
                work.done[each.target] = Hindrance.TOO_MANY
        slots = asyncio.Semaphore(AT_ONCE)
        # Tasks and no TaskGroup: at the end of the time what is done stays, and what is not is given up.
        tasks = [
            asyncio.create_task(self._bring(each, work, slots), name="claw.reply.bring") for each in wanted.values()
        ]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=self._timeout_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for target in wanted:
            work.done.setdefault(target, Hindrance.LATE)

    async def _bring(self, reference: Reference, work: _Work, slots: asyncio.Semaphore) -> None:
        async with slots:
            try:
                result = await self._try(reference, work)
            except MediaError as error:
                result = _BY_PROBLEM.get(error.problem, Hindrance.NOT_FETCHED)
                if result is Hindrance.NOT_ALLOWED and reference.is_on_this_machine:
                    # Of the agent's machine, that is: an address that leads everybody else to their own.
                    result = Hindrance.LOCAL
            except DingTalkError as error:
                result = self._read_refusal(error, work)
            except Exception:  # a fault in one picture must not cost the answer
                log.exception("a picture or file was not brought")
                result = Hindrance.REFUSED
            work.done[reference.target] = result

    async def _try(self, reference: Reference, work: _Work) -> _Result:
        """Bring one. Raises MediaError and DingTalkError."""
        if work.closed is not None:
            return work.closed
        async with AsyncExitStack() as stack:
            name = reference.name
            if reference.place is Place.WEB:
                if end_of(name) in FILE_ENDS and work.files_left <= 0:
                    # Known before its bytes are asked for.
                    return work.no_file
                content = await stack.enter_async_context(work.fetcher.hold(reference.target, UPLOAD_MAX_BYTES))
            else:
                # As much as it takes beside its text, which is held already.
                await stack.enter_async_context(self._budget.reserve(len(reference.target)))
                embedded = await self._run(decode_data, reference.target)
                content = embedded.content
                if embedded.end and end_of(name) not in FILE_ENDS:
                    name = f"{name or FILE_NAME}.{embedded.end}"
            if len(content) > UPLOAD_MAX_BYTES:
                return Hindrance.TOO_LARGE
            if (kind := detect_picture(content)) is not None:
                return await self._upload_picture(kind, content)
            return await self._upload_file(name, content, work)

    async def _upload_picture(self, kind: PictureFormat, content: bytes) -> _Picture:
        if kind is PictureFormat.OTHER:
            small = await self._reader.shrink(len(content), _iter_once(content))
            content = small.content
            kind = PictureFormat.PNG if small.mime == "image/png" else PictureFormat.JPEG
        return _Picture(await self._upload(UploadKind.IMAGE, f"picture.{kind.value}", content, mime_of(kind)))

    async def _upload_file(self, name: str, content: bytes, work: _Work) -> _Result:
        parcel = await self._run(make_parcel, name, content)
        if work.files_left <= 0:
            return work.no_file
        # Before the upload, during which others come here.
        work.files_left -= 1
        try:
            return _File(await self._send_up(parcel, FileRole.ATTACHMENT), name)
        except BaseException:
            work.files_left += 1
            raise

    async def _send_up(self, parcel: Parcel, role: FileRole) -> SentFile:
        media_id = await self._upload(UploadKind.FILE, parcel.name, parcel.content, "application/octet-stream")
        return SentFile(media_id, parcel.name, parcel.kind, role)

    async def _upload(self, kind: UploadKind, name: str, content: bytes, mime: str) -> str:
        for number in range(1, UPLOAD_TRIES + 1):
            try:
                media_id = await self._uploads.upload(kind, name, content, mime)
            except DingTalkError as error:
                # Nobody sees an upload: another try shows nothing twice.
                if number == UPLOAD_TRIES or not error.retryable or error.reason in _FINAL:
                    raise
            else:
                self._told.clear()
                return media_id
        raise AssertionError

    def _read_refusal(self, error: DingTalkError, work: _Work) -> Hindrance:
        """Return what the person is told of a refused upload; tell the operator of one that lasts, once."""
        cause = Hindrance.REFUSED
        if error.reason in _FINAL:
            cause = Hindrance.BUDGET if error.reason is DingTalkReason.QUOTA_EXHAUSTED else Hindrance.NO_PERMISSION
            work.closed = cause
        elif error.reason is DingTalkReason.TOO_LONG:
            cause = Hindrance.TOO_LARGE
        if error.reason in _FINAL and error.reason not in self._told:
            self._told.add(error.reason)
            # With the remedy: by DingTalk's own word it names the permission that is missing.
            log.error("pictures and files of answers cannot be uploaded", extra={"cause": str(error)})
        return cause

    # --- the rest as a file ----------------------------------------------------------------------------------------

    async def _add_whole(
        self, settled: Answer, answer: Answer, found: Sequence[Sequence[Reference]], work: _Work, language: Language
    ) -> Answer:
        """Return the answer with all of its text as a file, where that can be uploaded."""
        if work.closed is not None:
            return settled
        name = WHOLE_NAME[language]
        pieces = [
            _replace(each.text, references, _shorten_data)
            for each, references in zip(answer.content, found, strict=True)
            if isinstance(each, Markdown)
        ]
        try:
            text = "\n\n".join(pieces).encode("utf-8", "replace")
            async with self._budget.reserve(len(text)), asyncio.timeout(self._timeout_s):
                packed = await self._run(pack, name, text)
                if len(packed) > UPLOAD_MAX_BYTES:
                    return settled
                whole = await self._send_up(Parcel(f"{name.partition('.')[0]}.zip", "zip", packed), FileRole.WHOLE)
        except DingTalkError as error:
            self._read_refusal(error, work)
            return settled
        except TimeoutError:
            return settled
        return replace(settled, content=(*settled.content, whole))

    async def _shorten_history(self, answer: Answer) -> Exchange | None:
        exchange = answer.exchange
        if exchange is None or "data:" not in exchange.assistant:
            return exchange
        references = await self._run(find_references, exchange.assistant)
        return replace(exchange, assistant=_replace(exchange.assistant, references, _shorten_data))


def _rewrite(
    contents: Sequence[Content],
    found: Sequence[Sequence[Reference]],
    done: dict[str, _Result],
    language: Language,
) -> tuple[list[Content], list[SentFile]]:
    """Return the content with what was brought in its place, and the files, each once."""

    def show(reference: Reference, text: str) -> str:
        match done[reference.target]:
            case _Picture(media_id):
                return show_inline(reference.label, media_id)
            case _File(sent, name):
                files.setdefault(sent.media_id, sent)
                return show_file(reference, name)
            case Hindrance() as cause:
                return say_hindrance(reference, text, cause, language)

    files: dict[str, SentFile] = {}
    shown = [
        Markdown(_replace(each.text, references, show)) if isinstance(each, Markdown) else each
        for each, references in zip(contents, found, strict=True)
    ]
    return shown, list(files.values())


def _replace(text: str, references: Sequence[Reference], show: Callable[[Reference, str], str]) -> str:
    pieces: list[str] = []
    position = 0
    for each in references:
        pieces += (text[position : each.start], show(each, text[each.start : each.end]))
        position = each.end
    return "".join([*pieces, text[position:]])


def _shorten_data(reference: Reference, text: str) -> str:
    return shorten_embedded(reference) if reference.place in {Place.EMBEDDED, Place.CUT} else text


async def _iter_once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _log(done: dict[str, _Result]) -> None:
    """Tell how many were brought, and why others were not. Without addresses: some are good for whoever has them."""
    if left := Counter(each.name.lower() for each in done.values() if isinstance(each, Hindrance)):
        brought = sum(not isinstance(each, Hindrance) for each in done.values())
        log.warning("pictures or files of an answer not brought", extra={"brought": brought, "left": dict(left)})
