// What the patch rows of an encoder know of the drawings, without training anything on them: names by
// neighbors, as in docs/pretraining.md.
//
//     node tools/assets/name-drawings.mjs assets/models/tiny-clip
import { createOrtEngine } from '../../dist/engine/ort.js';
import { imageProcessorConfig } from '../../dist/images/processor.js';
import { visionStatesGraph } from '../../dist/models/programs.js';
import { visionFolderSchema } from '../../dist/models/vision.js';
import { withCheckpoint } from '../../dist/pretrained/folder.js';
import { readStored } from '../../dist/pretrained/stored.js';
import { neighborScores } from '../../dist/train/tasks/drawing-neighbors.js';

const [folder, heldOutArtist = 'twemoji'] = process.argv.slice(2);
const scores = await withCheckpoint(folder, visionFolderSchema, async (config, checkpoint) => {
  const { parameters } = visionStatesGraph(config, [config.image_size, config.image_size]);
  const weights = new Map();
  for (const { constants } of await readStored(checkpoint, parameters, { inFiles: false }))
    for (const [name, value] of constants) weights.set(name, value);
  const { image_mean: mean, image_std: std } = imageProcessorConfig.parse((await checkpoint.imageProcessor()).value);
  return neighborScores(createOrtEngine(), { config, weights, mean, std, heldOutArtist, seed: 42 });
});
for (const [split, readings] of Object.entries(scores))
  for (const [reading, { accuracy, ciLow, ciHigh, n }] of Object.entries(readings))
    console.log(`${split}, by ${reading}: ${[accuracy, ciLow, ciHigh].map((share) => (100 * share).toFixed(1)).join(' %, ')} % of ${n}`);
