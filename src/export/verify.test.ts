// What a verification finds in software that computes something else. tests/export.test.ts has the real one.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createSession } from '../generate/session.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import type { RunningPeer } from './peer.ts';
import type { PeerQuestion } from './peers/serve.ts';
import { ownTrace } from './trace.ts';
import { type Tolerance, verify } from './verify.ts';

const dir = 'assets/models/tiny-llava';
let model: LoadedModel;
beforeAll(async () => {
  model = await loadModel(dir);
});
afterAll(() => model.generator.dispose());

const answerOf = async ({ text, image }: PeerQuestion, maxNewTokens: number): Promise<string> => {
  const turns = [{ from: 'human' as const, value: text }];
  return (await createSession(model).answerAll([{ turns, images: [image] }], { maxNewTokens }))[0];
};

/** This very model, with something changed. */
function peer(changes: { answer?: RunningPeer['answer']; stage?: (name: string, data: Float32Array) => Float32Array }): RunningPeer {
  return {
    load: async () => 'a peer',
    answer: changes.answer ?? answerOf,
    trace: async (question) =>
      [...(await ownTrace(dir, model, question))].map(([name, data]) => ({ name, data: changes.stage?.(name, data) ?? data })),
    stop() {},
  };
}

const tolerance: Tolerance = { stages: 0.4, logits: 0.4, isRelative: true, answers: 0.5 };
const verified = (changed: RunningPeer) =>
  verify(dir, changed, { load: { peers: '', folder: 'out', dtype: 'q4' }, tolerance, questions: 12, maxNewTokens: 4 });

describe('a verification', () => {
  test('passes what computes the same, and says how many answers pictures change', async () => {
    const { same, asked, seen } = await verified(peer({}));
    expect([same, asked]).toEqual([12, 12]);
    expect(seen.of).toBeGreaterThan(4);
    expect(seen.changed).toBe(seen.of);
  });

  test('fails where pictures make no difference, even if half of the answers are right', async () => {
    let first: string | undefined;
    const blind: RunningPeer['answer'] = (question, maxNewTokens) => {
      first ??= question.image;
      return answerOf({ ...question, image: first }, maxNewTokens);
    };
    await expect(verified(peer({ answer: blind }))).rejects.toThrow(
      /a peer does not see its pictures as .*: another one changes \d+ answers/,
    );
  });

  test('fails where logits are off in packed types too, or are ruled out', async () => {
    const last = (of: (data: Float32Array) => Float32Array) => peer({ stage: (name, data) => (name === 'logits' ? of(data) : data) });
    await expect(verified(last((data) => data.map((value) => value / 2)))).rejects.toThrow('logits is the first that differs');
    await expect(verified(last((data) => data.map(() => -Infinity)))).rejects.toThrow('logits is the first that differs');
    await expect(verified(last((data) => data.map((value, i) => (i === 3 ? Number.NaN : value))))).rejects.toThrow('logits is the first');
  });
});
