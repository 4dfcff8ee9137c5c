"""Every sentence of `claw doctor` and `claw auth`, in Chinese and English: what was found, and what helps.

Keys are `what.case`. docs/dingtalk-setup and docs/troubleshooting quote these sentences; tests/ops/test_docs.py
compares them. A value in braces is put in when the sentence is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from claw.language import Language


class Text(NamedTuple):
    """A finding in both languages, and its remedy, empty where none is needed."""

    zh: str
    en: str
    cure_zh: str = ""
    cure_en: str = ""

    def said(self, language: Language) -> str:
        return self.zh if language is Language.ZH else self.en

    def cure(self, language: Language) -> str:
        return self.cure_zh if language is Language.ZH else self.cure_en


class Trouble(StrEnum):
    """A trouble as its people name it; the value is its name on the command line."""

    STREAM = "stream-connection-failed"
    SILENT = "bot-not-responding"
    DENIED = "permission-denied"
    UNSTEADY = "intermittent-disconnections"


TROUBLES: Final[Mapping[Trouble, Text]] = {
    Trouble.STREAM: Text("Stream 连接失败", "Stream connection failed"),
    Trouble.SILENT: Text("机器人已添加但不回复", "bot added but not responding"),
    Trouble.DENIED: Text("权限不足", "permission denied"),
    Trouble.UNSTEADY: Text("间歇性断线", "intermittent disconnections"),
}

STATUSES: Final[Mapping[str, Text]] = {
    "ok": Text("正常", "ok"),
    "warning": Text("警告", "warning"),
    "fault": Text("故障", "fault"),
    "skipped": Text("跳过", "skipped"),
}

_CONSOLE_ZH: Final = "https://open-dev.dingtalk.com"
_PUBLISH_ZH: Final = "在开放平台「版本管理与发布」中创建新版本并发布"
_PUBLISH_EN: Final = "create and publish a version in the console's 版本管理与发布 (Version management)"

_ADDRESS: Final = Text(
    "本机的出口 IP 不在应用的白名单中（HTTP {status} {code}）。",
    "This machine's outgoing IP is not on the app's white list (HTTP {status} {code}).",
    "在开放平台「安全设置」的服务器出口 IP 中加入它，或清空该名单。",
    "Add it to the outgoing IPs in the console's 安全设置 (Security settings), or empty that list.",
)
_MONTH: Final = Text(
    "组织本月的 API 调用额度已用完（HTTP {status} {code}）。",
    "The organisation's API calls of this month are used up (HTTP {status} {code}).",
    "升级钉钉版本或购买额度包，或等到下个月。",
    "Upgrade DingTalk or buy an add-on pack, or wait for the next month.",
)
_THROTTLED: Final = Text(
    "钉钉认为这一秒的调用太多（HTTP {status} {code}）。",
    "DingTalk counts too many calls in this second (HTTP {status} {code}).",
    "等一分钟再试；若一直如此，查一查还有谁在用同一个 Client ID。claw 会自行重试。",
    "Wait a minute and try again; if it lasts, find out who else uses this Client ID. claw tries again by itself.",
)
_TROUBLE: Final = Text(
    "钉钉暂时出错（HTTP {status}）。",
    "DingTalk is in trouble (HTTP {status}).",
    "稍后再试；claw 会自行重试。",
    "Try again later; claw tries again by itself.",
)
_UNANSWERED: Final = Text(
    "钉钉没有应答：{cause}。",
    "DingTalk did not answer: {cause}.",
    "检查防火墙与代理（HTTPS_PROXY、NO_PROXY）；若网络正常，稍后再试。",
    "Check the firewall and the proxy (HTTPS_PROXY, NO_PROXY); if the network is sound, try again later.",
)

TEXTS: Final[Mapping[str, Text]] = {
    # --- why a check did not run ------------------------------------------------------------------------------
    "skip.after": Text("未检查：先解决 {name}。", "Not checked: {name} has to work first."),
    "skip.settings": Text("未检查：{names} 未设置或有误。", "Not checked: {names} is not set or cannot be used."),
    "skip.offline": Text("未检查：--offline 不访问网络。", "Not checked: --offline stays off the network."),
    "skip.free": Text("未检查：--free 不做计费调用。", "Not checked: --free makes no billable call."),
    "check.timeout": Text(
        "{seconds} 秒内没有结果。",
        "No result within {seconds} s.",
        "用 --timeout 给它更长时间。",
        "Give it longer by --timeout.",
    ),
    "check.failed": Text(
        "检查本身出错（{cause}）。",
        "The check itself failed ({cause}).",
        "这是 claw 的缺陷，请报告。",
        "This is a fault of claw: please report it.",
    ),
    # --- settings ---------------------------------------------------------------------------------------------
    "settings.ok": Text("设置齐全，全部可用。", "The settings are complete and can be used."),
    "settings.warned": Text(
        "设置可用，但 {problems}。",
        "The settings can be used, but {problems}.",
        "改正变量名；变量一览见 README。",
        "Correct the variable's name; README lists them all.",
    ),
    "settings.faulty": Text(
        "{count} 处设置有误：{problems}。",
        "Settings at fault ({count}): {problems}.",
        "逐条改正；DINGTALK_CLIENT_ID 与 DINGTALK_CLIENT_SECRET 可用 claw auth 写入 .env。",
        "Correct each; `claw auth` writes DINGTALK_CLIENT_ID and DINGTALK_CLIENT_SECRET to .env.",
    ),
    # --- network ----------------------------------------------------------------------------------------------
    "network.ok": Text("{host} 可达（HTTP {status}）。", "{host} can be reached (HTTP {status})."),
    "network.ok_proxy": Text(
        "{host} 经代理 {proxy} 可达（HTTP {status}）。", "{host} can be reached by the proxy {proxy} (HTTP {status})."
    ),
    "network.dns": Text(
        "{host} 解析不到地址。",
        "{host} does not resolve to an address.",
        "检查本机、容器或 Pod 的 DNS，以及 {variable} 里的地址；经代理上网时请设置 HTTPS_PROXY。",
        "Check the DNS of this machine, container or pod, and the address in {variable}; where the internet is "
        "behind a proxy, set HTTPS_PROXY.",
    ),
    "network.refused": Text(
        "连不上 {host}:{port}（{cause}）。",
        "No connection to {host}:{port} ({cause}).",
        "在防火墙放行到 {host} 的 TCP {port}，并检查 {variable}；经代理上网时请设置 HTTPS_PROXY。",
        "Let TCP {port} out to {host} in the firewall, and check {variable}; where the internet is behind a proxy, "
        "set HTTPS_PROXY.",
    ),
    "network.tls": Text(
        "{host} 的证书不受信任（{cause}）。",
        "The certificate of {host} is not trusted ({cause}).",
        "若公司代理会拆解 TLS，用 SSL_CERT_FILE 指定它的 CA；也请检查本机时钟。",
        "If a company proxy opens TLS, name its CA in SSL_CERT_FILE; check this machine's clock too.",
    ),
    "network.no_tls": Text(
        "{host}:{port} 没能完成 TLS 握手（{cause}）。",
        "{host}:{port} did not complete the TLS handshake ({cause}).",
        "检查 {variable} 的 https 与端口，以及中间的代理。",
        "Check https and the port in {variable}, and proxies on the way.",
    ),
    "network.proxy": Text(
        "连不上代理 {proxy}。",
        "The proxy {proxy} cannot be reached.",
        "检查 HTTPS_PROXY；不该走代理的主机写进 NO_PROXY。",
        "Check HTTPS_PROXY; name hosts that need no proxy in NO_PROXY.",
    ),
    "network.proxy_refused": Text(
        "代理 {proxy} 不放行到 {host}（HTTP {status}）。",
        "The proxy {proxy} refused the way to {host} (HTTP {status}).",
        "请管理员放行该主机；HTTP 407 表示 HTTPS_PROXY 缺少用户名和密码。",
        "Ask for that host to be let through; HTTP 407 means that HTTPS_PROXY lacks user and password.",
    ),
    "network.timeout": Text(
        "{host} 在 {seconds} 秒内没有应答。",
        "{host} did not answer within {seconds} s.",
        "检查防火墙与代理：能连上却不应答，多半是中间设备。",
        "Check firewall and proxy: who takes a connection and never answers is mostly a device on the way.",
    ),
    "network.broken": Text(
        "与 {host} 的连接中途断开（{cause}）。",
        "The exchange with {host} broke off ({cause}).",
        "检查 {variable} 里的地址与中间的代理。",
        "Check the address in {variable}, and proxies on the way.",
    ),
    # --- clock ------------------------------------------------------------------------------------------------
    "clock.ok": Text("本机时钟与钉钉一致。", "This machine's clock agrees with DingTalk's."),
    "clock.off": Text(
        "本机时钟与钉钉相差 {seconds} 秒。",
        "This machine's clock is {seconds} s off DingTalk's.",
        "打开时间同步（例如 timedatectl set-ntp true）；容器用的是宿主机的时钟。",
        "Switch on time synchronisation (such as timedatectl set-ntp true); a container has its host's clock.",
    ),
    "clock.unknown": Text("未检查：应答里没有时间。", "Not checked: the answer told no time."),
    # --- credentials ------------------------------------------------------------------------------------------
    "credentials.ok": Text(
        "Client ID 与 Client Secret 正确：已取得访问令牌。",
        "Client ID and Client Secret are right: DingTalk gave an access token.",
    ),
    "credentials.refused": Text(
        "Client ID 或 Client Secret 不对（HTTP {status} {code}）。",
        "Client ID or Client Secret is wrong (HTTP {status} {code}).",
        "从开放平台「凭证与基础信息」重新复制同一应用的两个值，然后运行 claw auth。",
        "Copy both values of the same app again from the console's 凭证与基础信息 (Credentials), then run `claw auth`.",
    ),
    "credentials.odd": Text(
        "钉钉不给访问令牌：{cause}。",
        "DingTalk gives no access token: {cause}.",
        "检查 DINGTALK_OPENAPI_ENDPOINT 与应用的状态。",
        "Check DINGTALK_OPENAPI_ENDPOINT and the state of the app.",
    ),
    # --- what any call of DingTalk may meet -------------------------------------------------------------------
    "dingtalk.address": _ADDRESS,
    "dingtalk.month": _MONTH,
    "dingtalk.throttled": _THROTTLED,
    "dingtalk.trouble": _TROUBLE,
    "dingtalk.unanswered": _UNANSWERED,
    # --- registration -----------------------------------------------------------------------------------------
    "registration.ok": Text(
        "钉钉接受 Stream 注册，给出的接入点是 {host}。", "DingTalk accepts the Stream registration and names {host}."
    ),
    "registration.credentials": Text(
        "钉钉网关拒绝了凭证（HTTP 401 {code}）。",
        "DingTalk's gateway refuses the credentials (HTTP 401 {code}).",
        "核对 DINGTALK_CLIENT_ID 与 DINGTALK_CLIENT_SECRET（开放平台「凭证与基础信息」），然后运行 claw auth。",
        "Compare DINGTALK_CLIENT_ID and DINGTALK_CLIENT_SECRET with the console's 凭证与基础信息 (Credentials), then "
        "run `claw auth`.",
    ),
    "registration.app": Text(
        "钉钉网关拒绝了应用（HTTP 400 {code}）：版本未发布，或机器人不是 Stream 模式。",
        "DingTalk's gateway refuses the app (HTTP 400 {code}): no version is published, or the robot is not in Stream "
        "mode.",
        "在「机器人」页把消息接收模式设为 Stream 模式，再" + _PUBLISH_ZH + "；也请检查出口 IP 白名单。",
        "Set 消息接收模式 to Stream mode on the console's 机器人 (Robot) page, then "
        + _PUBLISH_EN
        + "; check the white list of outgoing IPs too.",
    ),
    "registration.forbidden": Text(
        "钉钉网关不许此应用接入（HTTP 403 {code}）。",
        "DingTalk's gateway forbids this app (HTTP 403 {code}).",
        "检查应用是否启用，以及开放平台的「权限管理」与「安全设置」。",
        "Check that the app is enabled, and the console's 权限管理 (Permissions) and 安全设置 (Security settings).",
    ),
    "registration.banned": Text(
        "钉钉暂时封禁了本机地址。",
        "DingTalk has banned this address for a while.",
        "等五分钟；有程序在用这个地址大量调用钉钉。",
        "Wait five minutes; some program at this address calls DingTalk far too often.",
    ),
    "registration.page": Text(
        "网关地址应答的是网页，不是钉钉。",
        "A web page came instead of the gateway's answer.",
        "多半是代理或防火墙：检查 HTTPS_PROXY 与 DINGTALK_OPENAPI_ENDPOINT。",
        "A proxy or firewall speaks here: check HTTPS_PROXY and DINGTALK_OPENAPI_ENDPOINT.",
    ),
    "registration.odd": Text(
        "网关的应答不可用：{cause}。",
        "The gateway's answer cannot be used: {cause}.",
        "检查 DINGTALK_OPENAPI_ENDPOINT；若地址正确，稍后再试。",
        "Check DINGTALK_OPENAPI_ENDPOINT; if that is right, try again later.",
    ),
    # --- session ----------------------------------------------------------------------------------------------
    "session.ok": Text(
        "已连上 {host}：ping 有应答，也收到了钉钉的第一帧。",
        "A session to {host} opened: our ping was answered, and DingTalk's first frame came.",
    ),
    "session.held": Text(
        "端口 {port} 上的 claw 正连着钉钉，没有另开连接。",
        "The claw on port {port} holds an open session; none was opened beside it.",
    ),
    "session.quiet": Text(
        "已连上 {host} 且 ping 有应答，但 {seconds} 秒内钉钉没有发来任何帧。",
        "A session to {host} opened and our ping was answered, but DingTalk sent no frame within {seconds} s.",
        "再试一次；若总是如此且机器人不回复，查中间的代理是否拦下了 WebSocket 帧。",
        "Try again; if it stays so and the robot does not answer, look for a proxy that holds back WebSocket frames.",
    ),
    "session.met": Text(
        "已连上 {host}；检查期间来了 {count} 条消息，没有确认，钉钉会在 60 秒后重发给 claw。",
        "A session to {host} opened; {count} messages came meanwhile and were not acked: DingTalk repeats them after "
        "60 s.",
        "没有 claw 在运行时重发也会丢失：请先启动 claw，再请对方重发。",
        "Without a running claw the repeat is lost too: start claw and ask people to write again.",
    ),
    "session.refused": Text(
        "{host} 拒绝升级为 WebSocket（HTTP {status}）。",
        "{host} refuses the WebSocket upgrade (HTTP {status}).",
        "代理须放行 WebSocket 到该主机；同一 Client ID 的连接过多也会如此：停掉多余的实例。",
        "Let a proxy pass WebSocket to that host; too many connections of one Client ID do the same: stop the others.",
    ),
    "session.unreachable": Text(
        "连不上接入点 {host}：{cause}。",
        "The endpoint {host} cannot be reached: {cause}.",
        "在防火墙与代理中放行 wss-open-connection.dingtalk.com 与 wss-open-connection-union.dingtalk.com 的 TCP 443。",
        "Let TCP 443 out to wss-open-connection.dingtalk.com and wss-open-connection-union.dingtalk.com, in firewall "
        "and proxy.",
    ),
    "session.closed": Text(
        "{host} 接受后立刻断开了连接（{cause}）。",
        "{host} accepted the session and ended it at once ({cause}).",
        "检查中间的代理；若没有代理，停掉同一 Client ID 的其他实例后再试。",
        "Check proxies on the way; without one, stop other instances of this Client ID and try again.",
    ),
    "session.mute": Text(
        "{host} 在 {seconds} 秒内没有应答 ping：连接是半开的。",
        "{host} did not answer our ping within {seconds} s: the connection is half-open.",
        "检查中间的代理、NAT 与防火墙对长连接的处理。",
        "Check how proxies, NAT and firewalls on the way treat long connections.",
    ),
    # --- permissions ------------------------------------------------------------------------------------------
    "permission.ok": Text("应用有权限 {permission}。", "The app has the permission {permission}."),
    "permission.missing": Text(
        "应用缺少权限 {permission}。",
        "The app lacks the permission {permission}.",
        "在开放平台「权限管理」中搜索并申请它，再" + _PUBLISH_ZH + "。",
        "Search for it in the console's 权限管理 (Permissions) and apply; then " + _PUBLISH_EN + ".",
    ),
    "permission.optional": Text(
        "应用缺少权限 {permission}：只有卡片和群信息用得到它。",
        "The app lacks the permission {permission}, which only cards and group details need.",
        "要用卡片时，在开放平台「权限管理」中申请它，再" + _PUBLISH_ZH + "。",
        "For cards, apply for it in the console's 权限管理 (Permissions); then " + _PUBLISH_EN + ".",
    ),
    "permission.robot": Text(
        "应用有权限 {permission}，但钉钉找不到机器人 {robot}（{code}）。",
        "The app has the permission {permission}, but DingTalk knows no robot {robot} ({code}).",
        "在开放平台给应用添加「机器人」能力，再" + _PUBLISH_ZH + "。",
        "Add the capability 机器人 (Robot) to the app in the console, then " + _PUBLISH_EN + ".",
    ),
    "permission.unknown": Text(
        "看不出应用是否有权限 {permission}：{cause}。",
        "It cannot be told whether the app has the permission {permission}: {cause}.",
        "在开放平台「权限管理」中查看。",
        "Look it up in the console's 权限管理 (Permissions).",
    ),
    "visibility.unknown": Text(
        "从这里查不到谁看得见机器人。",
        "Who can see the robot cannot be checked from here.",
        "找不到机器人的人不在可见范围内：开放平台「版本管理与发布」→ 最新版本 → 可见范围。",
        "Who cannot find the robot is not in its range: console > 版本管理与发布 (Version management) > newest "
        "version > 可见范围 (Visible range).",
    ),
    # --- model ------------------------------------------------------------------------------------------------
    "model.ok": Text("模型 {model} 在 {ms} 毫秒后开始回答。", "The model {model} began to answer after {ms} ms."),
    "model.slow": Text(
        "模型 {model} 在 {ms} 毫秒后才开始回答。",
        "The model {model} began to answer only after {ms} ms.",
        "看看模型服务的负载；人们会等同样久。",
        "Look at the load of the model's server: people wait as long.",
    ),
    "model.unauthorized": Text(
        "模型服务不接受凭证（{cause}）。",
        "The model's server does not accept the credentials ({cause}).",
        "检查 OPENAI_API_KEY，以及账户的余额与权限。",
        "Check OPENAI_API_KEY, and the account's balance and permissions at the provider.",
    ),
    "model.not_found": Text(
        "模型服务没有这个地址或模型（{cause}）。",
        "The model's server knows no such address or model ({cause}).",
        "检查 OPENAI_BASE_URL（多数以 /v1 结尾）与 OPENAI_MODEL。",
        "Check OPENAI_BASE_URL (for most servers it ends in /v1) and OPENAI_MODEL.",
    ),
    "model.refused": Text(
        "模型服务不接受这个请求（{cause}）。",
        "The model's server refuses the request ({cause}).",
        "按它的说明检查 OPENAI_MODEL 与 OPENAI_BASE_URL。",
        "Check OPENAI_MODEL and OPENAI_BASE_URL against its words.",
    ),
    "model.busy": Text(
        "模型服务很忙（{cause}）。",
        "The model's server is busy ({cause}).",
        "稍后再试；若一直如此，调低 CLAW_MAX_CONCURRENCY 或提高额度。",
        "Try again later; if it lasts, lower CLAW_MAX_CONCURRENCY or raise the limits at the provider.",
    ),
    "model.timeout": Text(
        "模型在 {seconds} 秒内没有开始回答。",
        "The model did not begin to answer within {seconds} s.",
        "看看模型服务的日志；第一次载入模型会更久，可用 --timeout 延长。",
        "Look at the log of the model's server; its first load takes longer: allow it by --timeout.",
    ),
    "model.unreachable": Text(
        "连不上模型服务 {host}（{cause}）。",
        "The model's server {host} cannot be reached ({cause}).",
        "检查 OPENAI_BASE_URL、该服务本身，以及 HTTPS_PROXY、NO_PROXY 与 SSL_CERT_FILE。"
        "在容器里 127.0.0.1 是容器自己。",
        "Check OPENAI_BASE_URL, the server, and HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE. In a container 127.0.0.1 is "
        "the container itself.",
    ),
    "model.server": Text(
        "模型服务出错（{cause}）。",
        "The model's server failed ({cause}).",
        "查看模型服务的日志；OPENAI_BASE_URL 须是 chat completions 接口。",
        "Look at the log of the model's server; OPENAI_BASE_URL must name a chat completions API.",
    ),
    # --- store ------------------------------------------------------------------------------------------------
    "store.ok": Text("存储可写：{path}（{kind}）。", "The store can be written: {path} ({kind})."),
    "store.held": Text(
        "存储 {path} 由正在运行的 claw 使用（{kind}）。", "The store {path} is held by a running claw ({kind})."
    ),
    "store.fleeting": Text(
        "存储 {path} 在 {kind} 上，重启或换容器后会丢失。",
        "The store {path} is on {kind}: it is lost when the machine or the container is replaced.",
        "挂载一个卷，并让 CLAW_STORE_URL 指向它。",
        "Mount a volume and point CLAW_STORE_URL into it.",
    ),
    "store.full": Text(
        "存储 {path} 所在的盘只剩 {free} MiB。",
        "The disk of the store {path} has {free} MiB left.",
        "腾出空间，或换更大的卷。",
        "Make room, or use a larger volume.",
    ),
    "store.unwritable": Text(
        "存储 {path} 不可写（{cause}）。",
        "The store {path} cannot be written ({cause}).",
        "给运行 claw 的用户写权限（Kubernetes：fsGroup），或改 CLAW_STORE_URL。",
        "Give the user that runs claw the right to write (Kubernetes: fsGroup), or change CLAW_STORE_URL.",
    ),
    "store.newer": Text(
        "存储 {path} 是更新版本的 claw 写的（{cause}）。",
        "The store {path} was written by a newer claw ({cause}).",
        "运行更新的版本，或换一个存储。",
        "Run the newer version, or use another store.",
    ),
    "store.broken": Text(
        "存储 {path} 打不开（{cause}）。",
        "The store {path} cannot be opened ({cause}).",
        "从备份恢复，或移走该文件让 claw 新建。",
        "Restore it from a backup, or move the file away and let claw make a new one.",
    ),
    # --- store in Redis ---------------------------------------------------------------------------------------
    "redis.ok": Text("Redis 可写：{where}（版本 {version}）。", "Redis can be written: {where} (version {version})."),
    "redis.evicts": Text(
        "Redis {where} 的 maxmemory-policy 是 {policy}：内存满时会丢弃消息或记忆。",
        "Redis {where} has maxmemory-policy {policy}: when its memory is full it drops messages or memory.",
        "改为 maxmemory-policy noeviction。",
        "Set maxmemory-policy noeviction.",
    ),
    "redis.forgets": Text(
        "Redis {where} 没有打开 appendonly：它重启后，最近确认过的消息会丢失。",
        "Redis {where} has appendonly off: when it restarts, what was acked lately is lost.",
        "打开 appendonly yes；托管的 Redis：打开 AOF 持久化。",
        "Set appendonly yes; in a managed Redis: switch on AOF persistence.",
    ),
    "redis.refused": Text(
        "Redis {where} 不接受我们（{cause}）。",
        "Redis {where} does not take us ({cause}).",
        "核对 CLAW_STORE_URL 里的用户、密码和主机；需要 Redis 6.2 以上或 Valkey，并允许脚本、发布订阅和读写。",
        "Check user, password and host in CLAW_STORE_URL; needed is Redis 6.2 or later or Valkey, with scripts, "
        "pub/sub, reading and writing allowed.",
    ),
    "redis.failing": Text(
        "Redis {where} 用不了（{cause}）。",
        "Redis {where} cannot be used ({cause}).",
        "核对 CLAW_STORE_URL 的主机、端口和协议（rediss 是 TLS）、NetworkPolicy 或防火墙，以及 Redis 自己的日志。",
        "Check host, port and scheme in CLAW_STORE_URL (rediss is TLS), NetworkPolicy or firewall, and Redis' own log.",
    ),
    # --- access -----------------------------------------------------------------------------------------------
    "access.ok": Text(
        "主人 {owners} 位；群：{group}；单聊：{direct}。", "Owners: {owners}; groups: {group}; direct chats: {direct}."
    ),
    "access.open_agent": Text(
        "看得见机器人的人都能指挥 {model}，它可能会动用工具。",
        "Everybody who can see the robot commands {model}, which may use tools.",
        "把 CLAW_GROUP_POLICY 与 CLAW_DIRECT_POLICY 设为 allowlist，或在网关里禁用、隔离它的工具。",
        "Set CLAW_GROUP_POLICY and CLAW_DIRECT_POLICY to allowlist, or deny or sandbox its tools at the gateway.",
    ),
    "access.first_come": Text(
        "还没有设主人：第一个单聊机器人的人会成为主人。",
        "No owner is set: the first person who writes in a direct chat becomes the owner.",
        "用 CLAW_OWNER 写明主人的 staffId，或设 CLAW_OWNER_PAIRING=code。",
        "Name the owner's staff id in CLAW_OWNER, or set CLAW_OWNER_PAIRING=code.",
    ),
    "access.nobody": Text(
        "{name} 是 allowlist，但名单是空的：除主人外没有人能得到回答。",
        "{name} is allowlist and its list is empty: nobody but the owner is answered.",
        "在 {list} 中写上允许的人，或改用 open。",
        "Name the people in {list}, or use open.",
    ),
    # --- instance ---------------------------------------------------------------------------------------------
    "instance.running": Text(
        "端口 {port} 上有 claw 在运行（{state}）。别处的实例从这里查不到。",
        "A claw runs on port {port} ({state}). Instances elsewhere cannot be seen from here.",
    ),
    "instance.unready": Text(
        "端口 {port} 上的 claw 没有就绪：{state}。",
        "The claw on port {port} is not ready: {state}.",
        "先解决其余故障；原因也写在它的日志里。",
        "Cure the other faults first; its log tells the reason too.",
    ),
    "instance.none": Text(
        "端口 {port} 上没有 claw。别处有没有同一 Client ID 的实例，从这里查不到。",
        "No claw runs on port {port}. Whether another instance uses this Client ID cannot be seen from here.",
        "若时答时不答：钉钉把消息随机分给同一 Client ID 的所有连接，停掉测试实例与旧部署。",
        "If only some messages are answered: DingTalk gives each to one connection of the Client ID at random; stop "
        "test instances and old deployments.",
    ),
    # --- quota ------------------------------------------------------------------------------------------------
    "quota.ok": Text(
        "本月（{month}）claw 记了 {webhook} 次 Webhook 与 {openapi} 次 OpenAPI 调用。",
        "In {month} claw counted {webhook} webhook and {openapi} OpenAPI calls.",
    ),
    "quota.near": Text(
        "本月（{month}）claw 记了 {webhook} 次 Webhook 与 {openapi} 次 OpenAPI 调用，"
        "接近标准组织的额度（3000 与 5000）。",
        "In {month} claw counted {webhook} webhook and {openapi} OpenAPI calls, close to a standard organisation's "
        "quota (3 000 and 5 000).",
        "在钉钉管理后台查看用量；升级或购买额度包。用完后机器人收到的消息没有内容。",
        "Look at the usage in DingTalk's admin console; upgrade or buy a pack. Once it is used up, messages "
        "come empty.",
    ),
    "quota.used_up": Text(
        "钉钉说本月的调用额度已用完。",
        "DingTalk says that this month's calls are used up.",
        "升级钉钉版本或购买额度包，或等到下个月。",
        "Upgrade DingTalk or buy an add-on pack, or wait for the next month.",
    ),
    "quota.unknown": Text("未检查：存储里还没有账目。", "Not checked: the store holds no accounts yet."),
    # --- what the commands say besides their checks -------------------------------------------------------------
    "doctor.calls": Text("计费调用：{count} 次。", "Billable calls made: {count}."),
    "doctor.troubles": Text("这些结果可以解释：", "What these findings explain:"),
    "auth.ask_id": Text("Client ID（AppKey）", "Client ID (AppKey)"),
    "auth.ask_secret": Text("Client Secret（AppSecret，输入不显示）", "Client Secret (AppSecret, not shown)"),
    "auth.keep": Text("回车保留现有的", "Enter keeps the present one"),
    "auth.where": Text(
        "在 " + _CONSOLE_ZH + " 打开应用，见「凭证与基础信息」。",
        "Open the app at " + _CONSOLE_ZH + ", page 凭证与基础信息 (Credentials).",
    ),
    "auth.no_terminal": Text(
        "这里没有终端可以提问：请用 --client-id 与 --client-secret-file（- 表示标准输入），"
        "或设置 DINGTALK_CLIENT_ID 与 DINGTALK_CLIENT_SECRET。",
        "There is no terminal to ask at: give --client-id and --client-secret-file (- for standard input), or set "
        "DINGTALK_CLIENT_ID and DINGTALK_CLIENT_SECRET.",
    ),
    "auth.hidden": Text(
        "这个终端不能隐藏输入，所以不问 Client Secret：请用 --client-secret-file。",
        "This terminal cannot hide what is typed, so the Client Secret is not asked for: give --client-secret-file.",
    ),
    "auth.unusable": Text("{name} 不可用：应为 {right}。", "{name} cannot be used; right would be {right}."),
    "auth.again": Text("{problem}请再输入一次。", "{problem} Please enter it again."),
    "auth.unreadable": Text("{path} 读不了：{cause}。", "{path} cannot be read: {cause}."),
    "auth.checking": Text("正在向钉钉核对……", "Asking DingTalk ..."),
    "auth.good": Text("凭证正确，Stream 连接可用。", "The credentials are right, and the Stream connection works."),
    "auth.bad": Text("没有通过，什么也没有写。", "Not accepted; nothing was written."),
    "auth.same": Text("{path} 里已经是这些值。", "{path} holds these values already."),
    "auth.ask_overwrite": Text("{path} 里已有不同的 {names}，覆盖吗？", "{path} holds a different {names}. Overwrite?"),
    "auth.kept": Text(
        "{path} 里已有不同的 {names}，未覆盖；加 --yes 即可覆盖。",
        "{path} holds a different {names} and was left as it is; --yes overwrites.",
    ),
    "auth.written": Text("已写入 {path}（仅本人可读写）。", "Written to {path} (only you can read it)."),
    "auth.unwritable": Text("{path} 写不了：{cause}。", "{path} cannot be written: {cause}."),
    "auth.shadowed": Text(
        "当前环境变量 {names} 的值不同，会盖过 {path}：请取消设置它。",
        "{names} in this environment says something else and wins over {path}: unset it.",
    ),
    "auth.container": Text(
        "在容器里 claw 不读 .env：请把这两个值作为环境变量或 Secret 交给容器。",
        "In a container claw does not read .env: hand the two values to it as variables or as a secret.",
    ),
    "auth.next": Text(
        "下一步：claw doctor 检查其余各项，claw run 启动。",
        "Next: `claw doctor` checks everything else, `claw run` serves.",
    ),
    "auth.next_check": Text(
        "下一步：不带 --check 运行 claw auth 即可写入 .env。",
        "Next: `claw auth` without --check writes them to .env.",
    ),
}


def said(key: str, language: Language, **values: object) -> str:
    """A sentence of the table with its values. Raises KeyError for an unknown key or a value that is missing."""
    return TEXTS[key].said(language).format_map(values)


def cure(key: str, language: Language, **values: object) -> str:
    """What helps against it; empty where nothing is needed."""
    return TEXTS[key].cure(language).format_map(values)
