// One process of `npm run bench -- ranks`: the large step of train-step, cut in two micro-batches, by itself
// or as one of two under mpirun. Started as `node side.js <threads>`. The first process is told {"steps": n},
// one request a line on stdin, and answers with a turn a line on stdout.

import { createInterface } from 'node:readline';
import { int32 } from '../../src/engine/engine.ts';
import { createOrtEngine } from '../../src/engine/ort.ts';
import { languageConfigSchema } from '../../src/models/language.ts';
import { languageModelLoss } from '../../src/models/programs.ts';
import { launchOf } from '../../src/mpi/launcher.ts';
import { openCommunicator } from '../../src/mpi/open.ts';
import { batchShare } from '../../src/train/processes.ts';
import { trainStage } from '../../src/train/stage.ts';
import { batchRows, drawWeights, heldStage, readSetup, rowDims } from '../train-step/held-stage.ts';

/** Rows of the large step, each a micro-batch. */
const ACCUMULATION = 2;
/** More than any run asks for. */
const MOST_STEPS = 1e6;

const setup = readSetup();
const size = { ...setup.sizes.large, batch: 1 };
const engine = createOrtEngine({ threads: Number(process.argv[2]) });
const communicator = await openCommunicator(launchOf(), { limit: 600, onSilence: console.error });
const loss = languageModelLoss(languageConfigSchema.parse(size.config));
const weights = drawWeights(loss.parameters, size.config.initializer_range);
const rows = batchRows(size);
const inputs = Object.fromEntries(Object.entries(rows).map(([name, data]) => [name, int32(data, rowDims(name, data, size))]));
const batch = { inputs, weight: rows.labels.length, tokens: size.tokens };
const { count } = batchShare(communicator, ACCUMULATION);

const side = heldStage((hold) =>
  trainStage({
    engine,
    loss,
    trained: new Map(weights.map(({ name, dims, data }) => [name, engine.state({ dtype: 'float32', dims: [...dims], data })])),
    constants: new Map(),
    learningRate: () => setup.optimizer.lr,
    schedule: { kind: 'constant', totalSteps: MOST_STEPS, warmupSteps: 0, floor: 0 },
    optimizer: { betas: setup.optimizer.betas, eps: setup.optimizer.eps, weightDecay: setup.optimizer.weight_decay, maxGradNorm: 0 },
    accumulation: ACCUMULATION,
    communicator,
    data: {
      stepsPerEpoch: MOST_STEPS,
      async *batches() {
        await hold.asked();
        for (let i = 0; i < count; i++) yield batch;
      },
    },
    onStep: ({ loss }) => hold.done(loss),
  }),
);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
for (;;) {
  const asked = communicator.rank === 0 ? (((await lines.next()).value as string | undefined) ?? '{"steps":0}') : '{"steps":0}';
  const [[steps]] = await communicator.share([(JSON.parse(asked) as { steps: number }).steps]);
  if (steps === 0) break;
  const turn = await side(steps);
  const cpu = await communicator.share(turn.cpu_ms);
  const ofAll = turn.cpu_ms.map((_, i) => cpu.reduce((sum, each) => sum + each[i], 0));
  if (communicator.rank === 0) console.log(JSON.stringify({ ...turn, cpu_ms: ofAll }));
}
await communicator.close();
process.exit(0);
