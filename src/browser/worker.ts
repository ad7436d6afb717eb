// The worker that a model runs in (client.ts is the page's side): loading, answering and training take
// turns in it, and the page stays quick.

import './no-eval.ts';
import { longestAnswer, samplingWith, seeded } from '../generate/defaults.ts';
import { createSession, type Session } from '../generate/session.ts';
import { type Folder, openFolder } from './folder.ts';
import type { CallName, Calls, FromWorker, LoadRequest, ToWorker } from './messages.ts';
import { loadModel, modelFiles, modelZip, type TabModel, trainConnector } from './model.ts';

const say = (message: FromWorker) => postMessage(message);

interface Loaded {
  folder: Folder;
  model: TabModel;
  session: Session;
}

let current: Loaded | undefined;

function loaded(): Loaded {
  if (!current) throw new Error('no model is loaded');
  return current;
}

type Work = {
  [N in CallName]: (
    request: Calls[N]['request'],
    tell: (event: Calls[N]['event']) => void,
    signal: AbortSignal,
  ) => Promise<Calls[N]['result']>;
};

const work: Work = {
  async load({ origin, files, headers, ...options }: LoadRequest, tell, signal) {
    await current?.model.dispose();
    current?.folder.close();
    current = undefined;
    const folder = await openFolder(origin, { files, headers, signal, onProgress: (done, total) => tell({ done, total }) });
    try {
      const model = await loadModel(folder, options);
      current = { folder, model, session: createSession(model) };
    } catch (error) {
      folder.close();
      throw error;
    }
    const { model, session } = current;
    return { name: folder.name, engine: model.engine.name, bytes: folder.bytes, contextLength: session.contextLength };
  },
  async answer({ turns, images, maxNewTokens, sampling }, tell, signal) {
    const { session, model } = loaded();
    let end: Calls['answer']['result'] | undefined;
    const onEnd = (given: Calls['answer']['result']) => {
      end = given;
    };
    const options = {
      maxNewTokens: maxNewTokens ?? longestAnswer(model.generation, session.contextLength),
      sampling: samplingWith(seeded(sampling ?? {}), model.generation),
    };
    for await (const piece of session.generate({ turns, images }, { ...options, signal, onEnd })) tell(piece);
    return end!;
  },
  async train({ examples, ...options }, tell, signal) {
    await trainConnector(loaded().model, examples, { ...options, signal, onStep: tell });
    return undefined;
  },
  files: () => modelFiles(loaded().model),
  zip: (name) => modelZip(loaded().model, name),
};

const running = new Map<number, AbortController>();

async function run<N extends CallName>(id: number, call: N, request: Calls[N]['request']): Promise<void> {
  const stop = new AbortController();
  running.set(id, stop);
  try {
    say({ id, result: await work[call](request, (event) => say({ id, event }), stop.signal) });
  } catch (error) {
    const { name, message } = error as Error;
    say({ id, error: { name, message } });
  } finally {
    running.delete(id);
  }
}

addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  if (data.call === 'abort') running.get(data.id)?.abort();
  else void run(data.id, data.call, data.request);
});
