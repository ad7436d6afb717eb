// A held-out split as one run answered it, with what the score of any of its questions must beat.

import { majorityBaseline, randomBaseline } from '../evaluate/baselines.ts';
import type { Sample, TaskScore } from '../evaluate/samples.ts';
import { answerKind, isCorrect, parseAnswer } from '../evaluate/scoring.ts';
import { meanOf } from '../statistics/proportion.ts';
import type { AnsweredScore } from './answered.ts';

type Baselines = ReturnType<AnsweredScore['baselines']>;

/**
 * `scores` are those of the run by task, and `exchanged` its answers before the pictures of other questions,
 * where it was asked so.
 */
export function splitScore(
  samples: readonly Sample[],
  scores: Readonly<Record<string, TaskScore>>,
  exchanged: readonly Sample[] | undefined,
): AnsweredScore {
  const exchangedById = new Map(exchanged?.map((sample) => [sample.id, Number(sample.correct)]));
  const majorityOf = Object.fromEntries(
    Object.entries(scores).map(([task, score]) => [
      task,
      majorityAnswer(
        samples.filter((sample) => sample.task === task),
        score,
      ),
    ]),
  );
  return {
    questions: samples.map(({ image, prompt, expected, answer, correct }) => ({
      key: JSON.stringify([image, prompt, expected]),
      cluster: image,
      prompt,
      expected,
      answer,
      credit: Number(correct),
      picture: image,
    })),
    baselines(chosen): Baselines {
      if (chosen.length === 0) return {};
      const own = chosen.map((index) => samples[index]);
      const isKnown = own.every(({ task }) => majorityOf[task] !== undefined);
      const blind = own.flatMap(({ blindCorrect }) => (blindCorrect === undefined ? [] : [Number(blindCorrect)]));
      const others = own.flatMap(({ id }) => exchangedById.get(id) ?? []);
      const tasks = [...new Set(own.map(({ task }) => task))].map((task) => own.filter((sample) => sample.task === task));
      const overTasks = (of: (samples: readonly Sample[], task: string) => number) =>
        tasks.reduce((sum, each) => sum + of(each, each[0].task) * each.length, 0) / own.length;
      return {
        chance: overTasks((each, task) => randomBaseline(task, each)),
        ...(isKnown
          ? {
              majority: overTasks((each, task) =>
                meanOf(each.map(({ expected }) => Number(isCorrect(answerKind(task), expected, majorityOf[task]!)))),
              ),
            }
          : {}),
        ...(blind.length === own.length ? { blind: meanOf(blind) } : {}),
        ...(others.length > 0 ? { exchanged: meanOf(others) } : {}),
      };
    },
  };
}

/**
 * The answer whose accuracy on the whole split a run has reported as that of the most frequent one: the
 * training's is not in its files. Undefined where that is no answer, or several.
 */
function majorityAnswer(samples: readonly Sample[], { majority, majorityFrom }: TaskScore): string | undefined {
  const kind = answerKind(samples[0].task);
  const expected = samples.map((sample) => sample.expected);
  const { answer } = majorityBaseline(kind, expected);
  if (majorityFrom === 'evaluation') return answer;
  const right = Math.round(majority * samples.length);
  const answers = [...new Set(expected.map((text) => parseAnswer(kind, text)))].sort();
  const found = answers.filter((text) => expected.filter((each) => isCorrect(kind, each, text)).length === right);
  return found.length === 1 ? found[0] : undefined;
}
