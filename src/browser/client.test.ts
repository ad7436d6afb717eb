import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { openWorker } from './client.ts';

class FakeWorker extends EventTarget {
  readonly posted: unknown[] = [];
  postMessage(message: unknown): void {
    this.posted.push(message);
  }
  terminate(): void {}
}

let worker: FakeWorker;
beforeEach(() => {
  vi.stubGlobal('location', { href: 'https://page.example/' });
  vi.stubGlobal(
    'Worker',
    class extends FakeWorker {
      constructor() {
        super();
        worker = this;
      }
    },
  );
});
afterEach(() => vi.unstubAllGlobals());

it('a worker that could not be loaded is told of also when it is asked later', async () => {
  const model = openWorker('https://page.example/wrong.js');
  worker.dispatchEvent(new Event('error'));
  await expect(model.load('https://host.example/m')).rejects.toThrow("the model's worker has died: it could not be loaded");
  expect(worker.posted).toEqual([]);
});

it('a model that was closed answers nobody, before and after', async () => {
  const model = openWorker('https://page.example/worker.js');
  const waiting = model.files();
  model.close();
  await expect(waiting).rejects.toThrow('the model was closed');
  await expect(model.answer({ turns: [{ from: 'human', value: 'Hello?' }] })).rejects.toThrow('the model was closed');
});
