// Server-sent events out of a stream of bytes: the data of each. Comments and other fields are passed over.

export async function* serverEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let held = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (held + decoder.decode(value, { stream: true })).split('\n');
      held = lines.pop()!;
      for (const line of lines) if (line.startsWith('data: ')) yield line.slice(6);
    }
  } finally {
    // whoever stops listening lets the server stop, too
    await reader.cancel().catch(() => {});
  }
}
