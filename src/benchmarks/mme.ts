// MME (Fu et al. 2023, arXiv 2306.13394): 14 tasks of pictures with two questions each, one to be answered
// yes and one no. A task's score is the share of right answers and that of pictures with both right, in
// percent, added; ten tasks make up perception (2000 at most), four cognition (800), as the benchmark's
// calculation.py has it. The convert_answer_to_mme.py of LLaVA finds the question of an answer by its words.

import { joinById } from './answers.ts';
import type { Answered, Benchmark, GroupScores, Judged, QuestionSources, Summary } from './benchmark.ts';
import { firstOf } from './files.ts';
import { byGroup, mean } from './means.ts';
import {
  COGNITION,
  type MmeQuestion,
  matchLines,
  PERCEPTION,
  RELEASE_PLACES,
  readAnswersAt,
  readQuestionsAt,
  TASKS,
  TEXT_PLACES,
} from './mme-files.ts';

type YesNo = 'yes' | 'no';

interface MmeJudged extends Judged<MmeQuestion> {
  said: YesNo | 'other';
}

/** Within the first four characters, as calculation.py looks for yes, then no. */
function saidIn(answer: string): YesNo | 'other' {
  // characters as Python counts them
  const start = [...answer.slice(0, 8)].slice(0, 4).join('');
  return start.includes('yes') ? 'yes' : start.includes('no') ? 'no' : 'other';
}

/** The same of an answer without spaces around it and full stops; y and n are read as well. */
function saidToLmmsEval(answer: string): YesNo | 'other' {
  const words = answer.trim().replaceAll('.', '');
  return words === 'y' ? 'yes' : words === 'n' ? 'no' : saidIn(words);
}

interface TaskScores extends GroupScores {
  score: number;
}

/** calculation.py's numbers of a task. Pictures of which one question was not asked have not both right. */
function scoresOfTask(judged: readonly MmeJudged[]): TaskScores {
  const counts = { TP: 0, FN: 0, TN: 0, FP: 0, other: 0 };
  for (const { question, said } of judged) {
    const isRight = said === question.references[0];
    counts[said === 'other' ? 'other' : said === 'yes' ? (isRight ? 'TP' : 'FP') : isRight ? 'TN' : 'FN']++;
  }
  const images = [...byGroup(judged, ({ question }) => question.cluster).values()];
  const acc = mean(judged.map(({ credit }) => credit));
  const acc_plus = mean(images.map((pair) => Number(pair.length === 2 && pair.every(({ credit }) => credit === 1))));
  return { score: acc * 100 + acc_plus * 100, acc, acc_plus, n: judged.length, images: images.length, ...counts };
}

function tasksOf(judged: readonly MmeJudged[]): Record<string, TaskScores> {
  const members = byGroup(judged, ({ question }) => question.groups.task);
  return Object.fromEntries(TASKS.filter((task) => members.has(task)).map((task) => [task, scoresOfTask(members.get(task)!)]));
}

/** The sum over those of the tasks that there are. */
const total = (tasks: Readonly<Record<string, TaskScores>>, names: readonly string[]): number =>
  names.reduce((sum, name) => sum + (tasks[name]?.score ?? 0), 0);

/** If all answers that are neither had been right. */
const ifRight = (judged: readonly MmeJudged[]) => judged.map((one) => (one.said === 'other' ? { ...one, credit: 1 } : one));

function summarize(judged: readonly MmeJudged[]): Summary {
  const tasks = tasksOf(judged);
  const perception = total(tasks, PERCEPTION);
  const hasCognition = COGNITION.some((name) => name in tasks);
  const isUnsure = judged.some(({ said, question }) => said === 'other' && PERCEPTION.includes(question.groups.task));
  return {
    scores: {
      perception,
      ...(hasCognition ? { cognition: total(tasks, COGNITION) } : {}),
      ...Object.fromEntries(Object.entries(tasks).map(([name, { score }]) => [name, score])),
    },
    groups: { task: tasks },
    bounds: isUnsure ? { low: perception, high: total(tasksOf(ifRight(judged)), PERCEPTION) } : undefined,
    notes: notesOf(tasks),
  };
}

function notesOf(tasks: Readonly<Record<string, TaskScores>>): string[] {
  return Object.entries({ perception: PERCEPTION, cognition: COGNITION }).flatMap(([part, names]) => {
    const missing = names.filter((name) => !(name in tasks));
    return missing.length === 0 ? [] : [`Without ${missing.length} of the ${names.length} tasks of ${part}: ${missing.join(', ')}.`];
  });
}

export const mme: Benchmark<MmeQuestion, MmeJudged> = {
  name: 'mme',
  title: 'MME: perception (10 tasks) and cognition (4 tasks)',
  source: 'Fu et al. 2023, MME: A Comprehensive Evaluation Benchmark for Multimodal Large Language Models, arXiv 2306.13394',
  headline: { name: 'perception', best: 2000 },
  maxNewTokens: 128,
  harnesses: [
    {
      name: 'mme',
      about: "the benchmark's calculation.py: yes or no within the first four characters, in any case; else other, and wrong",
    },
    { name: 'lmms-eval', about: 'mme/utils.py of lmms-eval: the same, spaces around it and full stops dropped, y and n read as well' },
  ],
  files: [
    {
      places: [...TEXT_PLACES, ...RELEASE_PLACES] as [string, ...string[]],
      holds: 'questions and right answers, a text file for each task; not needed where the folders of the release are there',
      url: 'https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/blob/Evaluation/tools/eval_tool.zip',
      bytes: 300_000,
      license: 'for research only; no licence file',
      needed: 'score',
    },
    {
      places: RELEASE_PLACES,
      holds: 'the folders of the 14 tasks, with questions and pictures',
      url: 'https://huggingface.co/datasets/darkyarding/MME/resolve/main/MME_Benchmark_release_version.zip',
      bytes: 865_000_000,
      license: 'for research only; no licence file',
      needed: 'ask',
      count: TASKS.length,
    },
  ],

  async questions({ files, folder = '.' }: QuestionSources) {
    if (files) return (await Promise.all(files.map(readQuestionsAt))).flat();
    return readQuestionsAt(firstOf(folder, [...RELEASE_PLACES, ...TEXT_PLACES]) ?? folder);
  },

  async answers(path, given): Promise<Answered<MmeQuestion>[]> {
    const { file, lines, questions } = await readAnswersAt(path, given);
    return joinById(file, questions, matchLines(lines, questions));
  },

  judge: (answered, { harness }) =>
    answered.map((one) => {
      const answer = one.answer.toLowerCase();
      const said = harness === 'lmms-eval' ? saidToLmmsEval(answer) : saidIn(answer);
      return { ...one, said, parsed: said === 'other' ? undefined : said, credit: said === one.question.references[0] ? 1 : 0 };
    }),

  summarize,
};
