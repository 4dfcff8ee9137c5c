// The smallest useful bot on the official Node SDK, as its example writes one: ask the model, reply by the webhook, ack.
// The SDK's addresses are constants, so its HTTP client, which it takes from the same axios as this file, sends them to
// the emulator instead; the SDK itself is as published. Its example leaves keepAlive off, with which it never looks
// whether the connection still lives; BENCH_KEEP_ALIVE switches it on.
import axios from "axios";
import { DWClient, EventAck, TOPIC_ROBOT } from "dingtalk-stream";
import OpenAI from "openai";

const emulator = process.env.DINGTALK_OPENAPI_ENDPOINT;
axios.interceptors.request.use((config) => {
  config.url = config.url.replace(/^https:\/\/(api|oapi)\.dingtalk\.com/, emulator);
  return config;
});

const model = new OpenAI({ maxRetries: 0 });
const client = new DWClient({
  clientId: process.env.DINGTALK_CLIENT_ID,
  clientSecret: process.env.DINGTALK_CLIENT_SECRET,
  keepAlive: Boolean(process.env.BENCH_KEEP_ALIVE),
});

client.registerCallbackListener(TOPIC_ROBOT, async (frame) => {
  const message = JSON.parse(frame.data);
  const stream = await model.chat.completions.create({
    model: process.env.OPENAI_MODEL,
    messages: [{ role: "user", content: message.text.content.trim() }],
    stream: true,
  });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  const answer = await axios.post(message.sessionWebhook, { msgtype: "markdown", markdown: { title: "answer", text } });
  client.socketCallBackResponse(frame.headers.messageId, answer.data);
});

client.registerAllEventListener(() => ({ status: EventAck.SUCCESS }));

await client.connect();
