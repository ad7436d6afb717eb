import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { createEventStream } from './event-stream.ts';

/** A stream, and why its reader has gone. */
function open(stall = 10_000) {
  const gone: string[] = [];
  const events = createEventStream({ stall, onGone: ({ message }) => gone.push(message) });
  return { events, gone };
}

describe('an event stream', () => {
  test('sends values as JSON and text as it is, to the byte', async () => {
    const { events, gone } = open();
    events.send({ a: 'é\n' });
    events.send('[DONE]');
    events.end();
    events.send('too late');
    expect(await events.response.text()).toBe('data: {"a":"é\\n"}\n\ndata: [DONE]\n\n');
    expect(events.response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(gone).toEqual([]);
  });

  test('lets a reader go that is far behind', async () => {
    const { events, gone } = open();
    for (let i = 0; i < 40 && gone.length === 0; i++) events.send('x'.repeat(100_000));
    expect(gone).toEqual(['the client reads too slowly']);
    await expect(events.response.text()).rejects.toThrow();
  });

  test('lets a reader go that takes nothing for long, and keeps one that takes its time', async () => {
    const { events, gone } = open(600);
    const slow = open(600);
    const reader = slow.events.response.body!.getReader();
    for (let i = 0; i < 12; i++) {
      events.send('x'.repeat(8000));
      slow.events.send('x'.repeat(8000));
      await reader.read();
      await sleep(200);
    }
    expect(gone).toEqual(['the client reads too slowly']);
    expect(slow.gone).toEqual([]);
    slow.events.end();
  });

  test('says when the reader leaves', async () => {
    const { events, gone } = open();
    await events.response.body!.cancel();
    expect(gone).toEqual(['the client has gone']);
    events.send('nobody hears it');
  });
});
