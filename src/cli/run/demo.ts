// What `llava-gemma demo` does.
import { join } from 'node:path';
import { readSamples, type Sample } from '../../evaluate/samples.ts';
import { findRunFolder } from '../../runs/folder.ts';
import { loadRecipe } from '../../train/recipe.ts';
import { printSummary, startTraining } from './train.ts';

/** A few answers of different tasks as lines of text. */
export function formatSamples(samples: readonly Sample[]): string {
  const lines = samples.map(({ image, prompt, expected, answer, correct }) => {
    // The question without the picture token and without LLaVA's "Answer with ..." line.
    const question = prompt
      .replaceAll('<image>', '')
      .trim()
      .split('\n')
      .filter((line) => !line.startsWith('Answer '))
      .join('  ');
    return `${image}\n  ${question}\n  ${answer}${correct ? '  (right)' : `  (wrong: ${expected})`}`;
  });
  return lines.join('\n');
}

/** The first sample of each of `count` tasks, from pictures as different as can be. */
export function chooseSamples(samples: readonly Sample[], count: number): Sample[] {
  const tasks = [...new Set(samples.map(({ task }) => task))].slice(0, count);
  const used = new Set<string>();
  return tasks.map((task) => {
    const ofTask = samples.filter((sample) => sample.task === task);
    const chosen = ofTask.find(({ image }) => !used.has(image)) ?? ofTask[0];
    used.add(chosen.image);
    return chosen;
  });
}

/** Runs the command, with `out` as its run folder. */
export async function demo(out: string): Promise<void> {
  const recipe = loadRecipe(join('recipes', 'emoji-tiny.yaml'));
  const summary = await startTraining({ recipe, title: 'LLaVA-Gemma demo', out, mode: 'overwrite' });
  const folder = findRunFolder(out);
  // the demo's recipe scores generated scenes: there are samples, and their pictures lie in its data folder
  const [split] = Object.keys(summary.scores);
  const chosen = chooseSamples(readSamples(folder.samples(split)), 3);
  console.log(`${formatSamples(chosen)}\n`);
  printSummary(out, summary);
  const imageFolder = recipe.task === 'llava' && recipe.data ? join(recipe.data.folder, 'images') : '';
  const model = folder.checkpoint(recipe.stages.at(-1)!.name);
  console.log(`\nTalk to it:  npx llava-gemma chat --short --model ${model} --image ${join(imageFolder, chosen[0].image)}`);
}
