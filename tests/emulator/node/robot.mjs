// A robot on the official Node SDK, as its README writes one. The SDK's addresses are constants, so its HTTP client,
// which it takes from the same axios as this file, sends them to the emulator instead; the SDK itself is as published.
import axios from "axios";
import { DWClient, EventAck, TOPIC_CARD, TOPIC_ROBOT } from "dingtalk-stream";

const [clientId, clientSecret, emulator] = process.argv.slice(2);

axios.interceptors.request.use((config) => {
  config.url = config.url.replace(/^https:\/\/(api|oapi)\.dingtalk\.com/, emulator);
  return config;
});

const client = new DWClient({ clientId, clientSecret, keepAlive: true });

client.registerCallbackListener(TOPIC_ROBOT, async (frame) => {
  const message = JSON.parse(frame.data);
  const token = await client.getAccessToken();
  const answer = await axios({
    url: message.sessionWebhook,
    method: "POST",
    responseType: "json",
    headers: { "x-acs-dingtalk-access-token": token },
    data: {
      msgtype: "text",
      text: { content: `you said ${message.text.content.trim()}` },
      at: { atUserIds: [message.senderStaffId], isAtAll: false },
    },
  });
  client.socketCallBackResponse(frame.headers.messageId, answer.data);
});

client.registerCallbackListener(TOPIC_CARD, (frame) => {
  client.socketCallBackResponse(frame.headers.messageId, { cardData: { cardParamMap: { content: "clicked" } } });
});

client.registerAllEventListener(() => ({ status: EventAck.SUCCESS }));

await client.connect();
