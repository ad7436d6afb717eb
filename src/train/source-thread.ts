// The thread that prepares the data of a run while the main one computes. It has one source open, that of the
// stage; several batches may be under way, while threads of its own decode their pictures.

import type { BatchSource } from './batch.ts';
import { openSource, type SourceDescription } from './source.ts';
import { answerRequests } from './thread-side.ts';

let source: Promise<BatchSource> | undefined;

answerRequests(
  async (method, parameters) => {
    if (method === 'open') {
      source = openSource(parameters[0] as SourceDescription);
      // whoever asks it first is told why it could not be opened
      source.catch(() => {});
      return undefined;
    }
    const opened = await source!;
    return (opened[method as keyof BatchSource] as (...given: readonly unknown[]) => Promise<unknown>)(...parameters);
  },
  (method) => method === 'batch',
);
