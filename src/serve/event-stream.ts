// Server-sent events whose reader may be slow: what it has not taken yet is held up to a limit, and a reader
// that takes nothing for long is let go.

/** Bytes that are held for a reader. */
const HELD = 2 ** 20;
/** Milliseconds of silence after which a comment shows that the connection lives. */
const PING = 15_000;

export interface EventStream {
  readonly response: Response;
  /** Sends one event: a value as JSON, or text as it is. */
  send(data: unknown): void;
  /** Ends the stream. */
  end(): void;
}

export interface EventStreamOptions {
  /** Milliseconds without taking anything after which a reader is let go. */
  stall: number;
  /** The reader has gone, or was let go. */
  onGone(reason: Error): void;
}

export function createEventStream({ stall, onGone }: EventStreamOptions): EventStream {
  const encoder = new TextEncoder();
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  let isOver = false;
  let [sentAt, takenAt] = [performance.now(), performance.now()];

  const watch = setInterval(() => {
    const now = performance.now();
    if (now - sentAt > PING) write(': ping\n\n');
    if (controller.desiredSize! <= 0 && now - takenAt > stall) drop('the client reads too slowly');
  }, 1000).unref();

  const stream = new ReadableStream<Uint8Array>(
    {
      start(given) {
        controller = given;
      },
      pull() {
        takenAt = performance.now();
      },
      cancel() {
        over();
        onGone(new Error('the client has gone'));
      },
    },
    new ByteLengthQueuingStrategy({ highWaterMark: 2 ** 14 }),
  );

  function over(): void {
    isOver = true;
    clearInterval(watch);
  }

  function drop(why: string): void {
    if (isOver) return;
    over();
    const reason = new Error(why);
    controller.error(reason);
    onGone(reason);
  }

  function write(text: string): void {
    if (isOver) return;
    sentAt = performance.now();
    // time counts only while something is there to be taken
    if (controller.desiredSize! > 0) takenAt = sentAt;
    controller.enqueue(encoder.encode(text));
    if (-controller.desiredSize! > HELD) drop('the client reads too slowly');
  }

  return {
    response: new Response(stream, {
      headers: { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no' },
    }),
    send: (data) => write(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`),
    end() {
      if (isOver) return;
      over();
      controller.close();
    },
  };
}
