// Runs a study: scenes are drawn, then the pieces, several at a time, each in a process of its own. It may be
// killed at any point; what has ended is recorded, and what has not goes on from its last checkpoint.

import { existsSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { buildEmojiDataset, emojiDataset } from '../data/emoji/build.ts';
import { makeFolder } from '../disk.ts';
import { UserError } from '../errors.ts';
import { lockFolder } from '../folder-lock.ts';
import { formatDuration, type StatusLine } from '../runs/status.ts';
import type { ChildProgress, Usage } from '../train/child.ts';
import { type LlavaRecipe, recipeToYaml } from '../train/recipe.ts';
import { scenesOf } from '../train/scenes.ts';
import {
  beginWith,
  contentReader,
  readRecord,
  readSittings,
  type StudyRecord,
  type StudySettings,
  studyFolder,
  writeJson,
} from './folder.ts';
import { doJob, type Job, type Outcome } from './job.ts';
import { type Piece, piecesOf, runsOf, scenesKey, withScenes } from './pieces.ts';
import type { Study, StudyRun } from './variants.ts';

export interface ExecuteOptions {
  folder: string;
  settings: StudySettings;
  /** Pieces at a time. */
  jobs: number;
  status: StatusLine;
  signal: AbortSignal;
}

/**
 * Runs all that has no record yet. Throws `signal.reason` when it is stopped, UserError for runs that
 * failed.
 */
export async function executeStudy(study: Study, options: ExecuteOptions): Promise<void> {
  const { folder, settings } = options;
  const contentOf = contentReader(settings.contents);
  const runs = runsOf(study, settings.shard ?? undefined, contentOf);
  const isOpen = ({ id }: { id: string }) => readRecord(folder, id) === undefined;
  const open = new Set(runs.filter(isOpen).map(({ id }) => id));
  if (open.size === 0) return;
  await drawScenes(runs, options);
  // pieces that nobody waits for any more are left out
  const pieces = piecesOf(runs, folder, contentOf);
  const needed = new Set(open);
  for (const piece of pieces.toReversed()) if (needed.has(piece.id)) for (const id of piece.after) needed.add(id);
  await new Scheduler(pieces, needed, runs.length, study, options).run();
}

/**
 * Draws the scenes that the runs ask for, each once in the life of a study's folder: what is there already as
 * it should be is left alone.
 */
async function drawScenes(runs: readonly StudyRun[], { folder, status, signal }: ExecuteOptions): Promise<void> {
  const drawn = new Set<string>();
  for (const { recipe } of runs) {
    const key = scenesKey(recipe);
    if (key === undefined || drawn.has(key)) continue;
    drawn.add(key);
    const marker = studyFolder(folder).record(`scenes-${key}`);
    if (existsSync(marker) && areThere(withScenes(recipe).data!.folder)) continue;
    signal.throwIfAborted();
    const { train_scenes, evaluation_scenes } = recipe.data!;
    status.note(`drawing ${train_scenes} training scenes and ${evaluation_scenes} of each held-out split`);
    const began = performance.now();
    await drawOnce(recipe);
    writeJson(marker, {
      outcome: 'finished',
      seconds: (performance.now() - began) / 1000,
      cpuSeconds: 0,
      peakRssMb: 0,
    } satisfies StudyRecord);
  }
}

/** What this process has drawn, or draws. */
const drawings = new Map<string, Promise<unknown>>();

/** Whether scenes were drawn to the end: the splits come last. */
const areThere = (folder: string) => {
  const { questions, evaluation } = emojiDataset(folder);
  return [questions, ...Object.values(evaluation)].every((path) => existsSync(path));
};

/**
 * Draws the scenes of a recipe of a study in their place, once in the life of the process if nobody removes
 * them.
 */
export async function drawOnce(recipe: LlavaRecipe): Promise<void> {
  const { data, seed } = withScenes(recipe);
  if (!data) return;
  const folder = resolve(data.folder);
  const before = drawings.get(folder);
  await before;
  // whoever comes first draws them anew where they were removed; the others wait for that
  if (drawings.get(folder) === before && !(before && areThere(folder))) drawings.set(folder, buildEmojiDataset(scenesOf(data, seed)));
  await drawings.get(folder);
}

/** What a piece has taken is worth no run: a disk that is full is told by what has to be written. */
function keep(path: string, sittings: readonly Usage[]): void {
  try {
    writeJson(path, sittings);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
  }
}

class Scheduler {
  private readonly pieces: readonly Piece[];
  private readonly study: Study;
  private readonly options: ExecuteOptions;
  private readonly runCount: number;
  /** Ids of pieces that are neither done nor going on. */
  private readonly waiting: Set<string>;
  private readonly running = new Map<string, { ended: Promise<void>; at: string }>();
  /** What became of pieces, from this sitting and those before. */
  private readonly records = new Map<string, StudyRecord>();
  private readonly failures: string[] = [];
  private readonly began = performance.now();

  constructor(pieces: readonly Piece[], needed: ReadonlySet<string>, runCount: number, study: Study, options: ExecuteOptions) {
    this.pieces = pieces;
    this.study = study;
    this.options = options;
    this.runCount = runCount;
    for (const { id } of pieces) {
      const record = readRecord(options.folder, id);
      if (record) this.records.set(id, record);
    }
    this.waiting = new Set(pieces.filter(({ id }) => needed.has(id) && !this.records.has(id)).map(({ id }) => id));
  }

  async run(): Promise<void> {
    const { signal } = this.options;
    for (;;) {
      while (!signal.aborted && this.failures.length === 0 && this.running.size < this.options.jobs) {
        const next = this.pieces.find((piece) => this.waiting.has(piece.id) && piece.after.every((id) => this.records.has(id)));
        if (!next) break;
        await this.begin(next);
      }
      if (this.running.size === 0) break;
      await Promise.race([...this.running.values()].map(({ ended }) => ended));
    }
    signal.throwIfAborted();
    if (this.failures.length > 0) throw new UserError(this.failures.join('\n'));
  }

  private async begin(piece: Piece): Promise<void> {
    this.waiting.delete(piece.id);
    // what begins with stages that became non-finite has become so with them
    const before = piece.after.map((id) => this.records.get(id)!).find(({ outcome }) => outcome === 'diverged');
    if (before) return this.record(piece, { ...before, seconds: 0, cpuSeconds: 0, peakRssMb: 0 });
    if (piece.kind !== 'features') await this.prepare(piece);
    const entry = { ended: Promise.resolve(), at: 'starting' };
    const earlier = readSittings(this.options.folder, piece.id);
    const onUsage = (usage: Usage) => keep(studyFolder(this.options.folder).sittings(piece.id), [...earlier, usage]);
    const onProgress = (progress: ChildProgress) => {
      if (typeof progress !== 'string') entry.at = `${progress.stage} ${progress.step}/${progress.totalSteps}`;
      this.draw();
    };
    entry.ended = doJob(this.jobOf(piece), { signal: this.options.signal, onProgress, onUsage }).then((outcome) =>
      this.end(piece, outcome, earlier),
    );
    this.running.set(piece.id, entry);
    this.draw();
  }

  /**
   * Waits until a process of a study that was killed is gone, and begins a run with the stages that it
   * shares.
   */
  private async prepare({ out, base, recipe }: Piece): Promise<void> {
    if (existsSync(out)) {
      for (let tries = 0; ; tries++)
        try {
          await (await lockFolder(out, { note: this.options.status.note })).release();
          break;
        } catch (error) {
          if (!(error instanceof UserError) || tries === 20) throw error;
          await new Promise((resolve) => setTimeout(resolve, 500));
        }
    }
    if (!existsSync(join(out, 'recipe.yaml')) && base) {
      rmSync(out, { recursive: true, force: true });
      makeFolder(join(out, '..'));
      beginWith(base.out, out, recipeToYaml(recipe));
    }
  }

  private jobOf({ id, kind, recipe, out }: Piece): Job {
    const { folder, settings } = this.options;
    const { splits: _, ...asked } = this.study.file.score;
    const measures = { out: studyFolder(folder).measures(id), ...asked };
    return {
      kind,
      recipe,
      title: `${this.study.file.name}: ${id}`,
      out,
      threads: settings.threads,
      ...(kind === 'run' ? { measures } : {}),
    };
  }

  /** `earlier` are sittings that ended before the piece did. */
  private end(piece: Piece, outcome: Outcome, earlier: readonly Usage[]): void {
    this.running.delete(piece.id);
    if (outcome.kind === 'stopped') return;
    if (outcome.kind === 'failed') {
      this.failures.push(`${piece.id}: ${outcome.message}`);
      return;
    }
    const { kind } = outcome;
    const { folder } = this.options;
    const { seconds, cpuSeconds, peakRssMb } = [...earlier, outcome].reduce<Usage>(
      (sum, each) => ({
        seconds: sum.seconds + each.seconds,
        cpuSeconds: sum.cpuSeconds + each.cpuSeconds,
        peakRssMb: Math.max(sum.peakRssMb, each.peakRssMb),
      }),
      { seconds: 0, cpuSeconds: 0, peakRssMb: 0 },
    );
    const diverged = kind === 'diverged' ? { diverged: { stage: outcome.stage, step: outcome.step } } : {};
    this.record(piece, { outcome: kind, ...diverged, seconds, cpuSeconds, peakRssMb });
    rmSync(studyFolder(folder).sittings(piece.id), { force: true });
  }

  private record(piece: Piece, record: StudyRecord): void {
    writeJson(studyFolder(this.options.folder).record(piece.id), record);
    this.records.set(piece.id, record);
    const { outcome, diverged, seconds } = record;
    const how = diverged ? `became non-finite at step ${diverged.step} of ${diverged.stage}` : outcome;
    this.options.status.note(`${piece.id}: ${how} (${formatDuration(seconds)})  ${this.overview()}`);
  }

  /** How many runs have ended, and how long the rest may take: as the pieces of each kind have so far. */
  private overview(): string {
    const done = this.pieces.filter(({ kind, id }) => kind === 'run' && this.records.has(id)).length;
    const left = this.remaining();
    return `${done} of ${this.runCount} runs  ETA ${left === undefined ? '-' : formatDuration(left)}`;
  }

  private remaining(): number | undefined {
    const expected = (piece: Piece): number | undefined => {
      const like = this.pieces.filter(
        ({ id, kind, run }) => this.records.has(id) && kind === piece.kind && run?.variant === piece.run?.variant,
      );
      const those = like.length > 0 ? like : this.pieces.filter(({ id, kind }) => this.records.has(id) && kind === piece.kind);
      const seconds = those.map(({ id }) => this.records.get(id)!.seconds).filter((each) => each > 0);
      return seconds.length > 0 ? seconds.reduce((sum, each) => sum + each, 0) / seconds.length : undefined;
    };
    const left = this.pieces.filter(({ id }) => this.waiting.has(id) || this.running.has(id)).map(expected);
    const known = left.filter((each) => each !== undefined);
    if (known.length === 0) return left.length === 0 ? 0 : undefined;
    const mean = known.reduce((sum, each) => sum + each, 0) / known.length;
    return (mean * left.length) / Math.min(this.options.jobs, left.length);
  }

  private draw(): void {
    const { status } = this.options;
    const going = [...this.running].map(([id, { at }]) => `${id.slice(0, 28)} ${at}`).join('  ');
    status.draw(`${this.overview()}  ${formatDuration((performance.now() - this.began) / 1000)}  ${going}`);
  }
}
