// Captions of COCO and Flickr30k in Karpathy's test splits, scored as the COCO caption evaluation does
// (tylin/coco-caption, pycocoevalcap): BLEU, ROUGE-L and CIDEr-D. METEOR and SPICE need Java programs with
// word lists of their own, and are left out.

import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { joinById, refuseRepeated } from './answers.ts';
import type { Benchmark, BenchmarkQuestion, Judged, QuestionSources } from './benchmark.ts';
import { bleu, type Captioned, ciderD, rougeL } from './caption-metrics.ts';
import { coco, flickr30k, type KarpathySet, karpathyDownloads, karpathyFile, readKarpathy } from './karpathy.ts';
import { mean } from './means.ts';
import { captionTokens } from './ptb-tokenizer.ts';

interface CaptionQuestion extends BenchmarkQuestion {
  names: readonly string[];
}

interface CaptionJudged extends Judged<CaptionQuestion>, Captioned {
  rouge: number;
}

/** The most that CIDEr-D can be. */
const BEST = 10;

const PROMPT = '<image>\nProvide a one-sentence caption for the provided image.';
const RESULTS = { id: 'image_id', answer: 'caption', about: "captions in COCO's form (an array of image_id and caption)" };

/** The same questions are judged again and again where guesses are scored. */
const tokenized = new WeakMap<CaptionQuestion, string[]>();
function referenceTokens(question: CaptionQuestion): string[] {
  const tokens = tokenized.get(question) ?? question.references.map(captionTokens);
  tokenized.set(question, tokens);
  return tokens;
}

const captionsOf = (set: KarpathySet): Benchmark<CaptionQuestion, CaptionJudged> => ({
  name: `${set.name}-captions`,
  title: `Captions of ${set.title}`,
  source: 'Karpathy and Fei-Fei 2015, arXiv 1412.2306; Chen et al. 2015, Microsoft COCO Captions, arXiv 1504.00325',
  headline: { name: 'CIDEr', best: BEST },
  maxNewTokens: 64,
  harnesses: [{ name: 'coco', about: "the COCO caption evaluation; lmms-eval's prompt" }],
  files: karpathyDownloads(set),

  async questions({ files, folder = '.' }: QuestionSources) {
    const paths = karpathyFile(set, files, folder);
    const questions = paths.flatMap((path) =>
      readKarpathy(set, path, folder).map(({ id, names, image, picture, captions }) => ({
        id,
        names,
        prompt: PROMPT,
        pictures: [picture],
        references: captions.map(({ text }) => text),
        cluster: image,
        groups: {},
      })),
    );
    refuseRepeated(paths.join(', '), 'pictures', questions);
    return questions;
  },

  async answers(path, questions) {
    if (questions === undefined)
      throw new UserError(`${path}: the captions of people are in ${set.file}; give it with --questions or --data`);
    const ids = new Map(questions.flatMap(({ id, names }) => names.map((name) => [name, id] as const)));
    for (const { id } of questions) ids.set(id, id);
    const lines = await readAnswers(path, RESULTS);
    return joinById(
      path,
      questions,
      lines.map((line) => ({ ...line, id: ids.get(line.id) ?? line.id })),
      `are they of another split? ${set.title} is asked`,
    );
  },

  judge(answered) {
    const captions = answered.map(({ question, answer }) => ({ candidate: captionTokens(answer), references: referenceTokens(question) }));
    const cider = ciderD(captions);
    return answered.map((one, i) => {
      const { candidate } = captions[i];
      return {
        ...one,
        ...captions[i],
        rouge: rougeL(captions[i]),
        credit: cider[i] / BEST,
        parsed: candidate === '' ? undefined : candidate,
      };
    });
  },

  summarize(judged) {
    const scores = Object.fromEntries(bleu(judged).map((score, order) => [`Bleu_${order + 1}`, score]));
    scores.ROUGE_L = mean(judged.map(({ rouge }) => rouge));
    scores.CIDEr = mean(judged.map(({ credit }) => credit)) * BEST;
    return { scores, groups: {} };
  },
});

export const cocoCaptions = captionsOf(coco);
export const flickr30kCaptions = captionsOf(flickr30k);
