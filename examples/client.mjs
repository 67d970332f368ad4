// Ask from JavaScript, with nothing installed: node examples/client.mjs [address]
const [address = "http://127.0.0.1:7860"] = process.argv.slice(2);

const answer = await fetch(`${address}/v1/chat/completions`, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({
    model: "budgie",
    messages: [{ role: "user", content: "Hello, who are you?" }],
    stream: true,
    temperature: 0,
    strategy: "prompt_lookup",
  }),
});
if (!answer.ok) throw new Error((await answer.json()).error.message);

let waiting = "";
for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) {
  const lines = (waiting + piece).split("\n");
  waiting = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: {")) continue; // comments keep the stream alive, and [DONE] ends it
    process.stdout.write(JSON.parse(line.slice(6)).choices[0]?.delta.content ?? "");
  }
}
process.stdout.write("\n");
