// Alignment of image rows and text rows in the models of a study, by layer and by cell (alignment/align.ts).

import { join } from 'node:path';
import { type Alignment, align, type ConnectorRetrieval } from '../alignment/align.ts';
import { emojiPictures } from '../alignment/pictures.ts';
import type { Retrieval } from '../alignment/retrieval.ts';
import { bundledTowerOf } from '../alignment/text-tower.ts';
import { bundledTexts } from '../alignment/texts.ts';
import type { Engine } from '../engine/engine.ts';
import { meanOf } from '../statistics/proportion.ts';
import type { LlavaRecipe } from '../train/recipe.ts';
import { readJson, writeJson } from './folder.ts';

/** Of the scenes, which are the same for all runs, and of texts, groups and bootstraps. */
const SEED = 1;
/** Candidates of retrieval by likelihood, and so the least scenes of a group. */
const WAYS = 10;

/** A number of pictures that is asked for, and the model. */
export interface AlignmentAsked {
  pictures: number;
  model: string;
  recipe: LlavaRecipe;
  engine: Engine;
  signal: AbortSignal;
}

const fileOf = (measures: string) => join(measures, 'alignment.json');

/** Measures a model and keeps what was found in the folder `measures`. */
export async function takeAlignment(measures: string, { pictures: count, model, recipe, engine, signal }: AlignmentAsked): Promise<void> {
  const captions = recipe.stages.find(({ data }) => data === 'captions');
  const found = await align(model, {
    pictures: await emojiPictures(count, SEED),
    texts: await bundledTexts(count, SEED),
    measures: ['mir', 'a-score', 'retrieval'],
    seed: SEED,
    template: captions?.template === 'plain' ? 'plain' : 'gemma',
    ways: Math.min(WAYS, count),
    textTower: await bundledTowerOf(model),
    engine,
    signal,
  });
  writeJson(fileOf(measures), found);
}

/** What was found for a run; undefined where nothing was measured. */
export const readAlignment = (measures: string) => readJson<Alignment>(fileOf(measures));

/** Headline numbers of a run, by name. */
export const alignmentNumbers = ({ mir, aScore, retrieval, connector }: Alignment): Record<string, number> => ({
  ...(mir ? { MIR: mir.mir, 'MIR, rows of equal norm': mir.equalNormMir } : {}),
  'norm ratio at the input': connector.inputNormRatio,
  ...(aScore ? { 'A score': aScore.value, 'image gain of captions': aScore.imageGain.value } : {}),
  ...(retrieval ? retrievalNumbers(retrieval) : {}),
});

/** Shares that are found at the first place, both ways, beside chance and the encoder's own text tower. */
function retrievalNumbers({ likelihood, pooled, late, textTower }: ConnectorRetrieval): Record<string, number> {
  const found = (name: string, { imageToText, textToImage }: Retrieval) => ({
    [`caption found by ${name}`]: imageToText.recall[1],
    [`picture found by ${name}`]: textToImage.recall[1],
  });
  return {
    ...(likelihood
      ? {
          ...found('likelihood', likelihood.withoutPrior),
          ...found('likelihood with the prior of words', likelihood.raw),
          'chance by likelihood': likelihood.withoutPrior.imageToText.chance[1],
        }
      : {}),
    ...found('pooled cosine', pooled.raw),
    ...found('late interaction', late.raw),
    ...(textTower ? found("the encoder's text tower", textTower.raw) : {}),
    'chance by cosine': pooled.raw.imageToText.chance[1],
  };
}

/** The runs of one cell, each number a mean over seeds. */
export interface CellAlignment {
  cell: string;
  seeds: number;
  numbers: Record<string, number>;
  /** From the output of the first layer on; distances as in MIR, before the logarithm of their sum. */
  layers: { layer: number; normRatio: number; distance: number; equalNormDistance: number }[];
}

/** By cell, those that have any. */
export function cellAlignments(runs: readonly { cell: string; alignment: Alignment | undefined }[]): CellAlignment[] {
  return [...new Set(runs.map(({ cell }) => cell))].flatMap((cell) => {
    const found = runs.flatMap((run) => (run.cell === cell && run.alignment ? [run.alignment] : []));
    if (found.length === 0) return [];
    const numbers = found.map(alignmentNumbers);
    const names = Object.keys(numbers[0]).filter((name) => numbers.every((each) => Number.isFinite(each[name])));
    const layers = (found[0].mir?.layers ?? []).map(({ layer }, i) => {
      const mean = (of: 'normRatio' | 'distance' | 'equalNormDistance') => meanOf(found.map(({ mir }) => mir!.layers[i][of]));
      return { layer, normRatio: mean('normRatio'), distance: mean('distance'), equalNormDistance: mean('equalNormDistance') };
    });
    return [
      {
        cell,
        seeds: found.length,
        numbers: Object.fromEntries(names.map((name) => [name, meanOf(numbers.map((each) => each[name]))])),
        layers,
      },
    ];
  });
}
