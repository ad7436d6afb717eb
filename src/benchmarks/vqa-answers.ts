// How short answers are brought into one form before they are compared: by the VQA scorer (processPunctuation
// and processDigitArticle of PythonEvaluationTools/vqaEvaluation/vqaEval.py, GT-Vision-Lab/VQA), and by the
// EvalAI answer processor (llava/eval/m4c_evaluator.py), which LLaVA puts answers through before an upload.
// Their quirks are part of the scores that are published, and are kept.

import { pythonSplit, pythonStrip } from './python-text.ts';

const PUNCTUATION = [';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!'];
const ANY_PUNCTUATION = /[;/[\]"{}()=+\\_\-><@`,?!]/;

/** One comma between digits: the VQA scorer's test for numbers such as 1,000. */
const COMMA = /\p{Nd},\p{Nd}/u;
/** The EvalAI processor's: any number of commas. */
const COMMAS = /\p{Nd},+\p{Nd}/u;

/** Full stops not before a digit. The look-behind that is meant for a digit before them is misspelt. */
const PERIOD = /\.(?!\p{Nd})/gu;
/** The flag re.UNICODE, 32, is given in the place of the count: later full stops stay. */
const PERIODS_REMOVED = 32;

const NUMBERS = new Map(
  ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'].map((word, number) => [word, String(number)]),
).set('none', '0');

const ARTICLES = new Set(['a', 'an', 'the']);

/**
 * What is said for which word. Entries of the original that do nothing are left out: two that say what they
 * replace, and four with a capital, since words are in lower case by then. `somebody'd` loses its apostrophe.
 */
const CONTRACTIONS = new Map(
  Object.entries({
    aint: "ain't",
    arent: "aren't",
    cant: "can't",
    couldve: "could've",
    couldnt: "couldn't",
    "couldn'tve": "couldn't've",
    "couldnt've": "couldn't've",
    didnt: "didn't",
    doesnt: "doesn't",
    dont: "don't",
    hadnt: "hadn't",
    "hadnt've": "hadn't've",
    "hadn'tve": "hadn't've",
    hasnt: "hasn't",
    havent: "haven't",
    hed: "he'd",
    "hed've": "he'd've",
    "he'dve": "he'd've",
    hes: "he's",
    howd: "how'd",
    howll: "how'll",
    hows: "how's",
    isnt: "isn't",
    itd: "it'd",
    "itd've": "it'd've",
    "it'dve": "it'd've",
    itll: "it'll",
    maam: "ma'am",
    mightnt: "mightn't",
    "mightnt've": "mightn't've",
    "mightn'tve": "mightn't've",
    mightve: "might've",
    mustnt: "mustn't",
    mustve: "must've",
    neednt: "needn't",
    notve: "not've",
    oclock: "o'clock",
    oughtnt: "oughtn't",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    shant: "shan't",
    "shed've": "she'd've",
    "she'dve": "she'd've",
    shouldve: "should've",
    shouldnt: "shouldn't",
    "shouldnt've": "shouldn't've",
    "shouldn'tve": "shouldn't've",
    "somebody'd": 'somebodyd',
    "somebodyd've": "somebody'd've",
    "somebody'dve": "somebody'd've",
    somebodyll: "somebody'll",
    somebodys: "somebody's",
    someoned: "someone'd",
    "someoned've": "someone'd've",
    "someone'dve": "someone'd've",
    someonell: "someone'll",
    someones: "someone's",
    somethingd: "something'd",
    "somethingd've": "something'd've",
    "something'dve": "something'd've",
    somethingll: "something'll",
    thats: "that's",
    thered: "there'd",
    "thered've": "there'd've",
    "there'dve": "there'd've",
    therere: "there're",
    theres: "there's",
    theyd: "they'd",
    "theyd've": "they'd've",
    "they'dve": "they'd've",
    theyll: "they'll",
    theyre: "they're",
    theyve: "they've",
    twas: "'twas",
    wasnt: "wasn't",
    "wed've": "we'd've",
    "we'dve": "we'd've",
    weve: "we've",
    werent: "weren't",
    whatll: "what'll",
    whatre: "what're",
    whats: "what's",
    whatve: "what've",
    whens: "when's",
    whered: "where'd",
    wheres: "where's",
    whereve: "where've",
    whod: "who'd",
    "whod've": "who'd've",
    "who'dve": "who'd've",
    wholl: "who'll",
    whos: "who's",
    whove: "who've",
    whyll: "why'll",
    whyre: "why're",
    whys: "why's",
    wont: "won't",
    wouldve: "would've",
    wouldnt: "wouldn't",
    "wouldnt've": "wouldn't've",
    "wouldn'tve": "wouldn't've",
    yall: "y'all",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
    youd: "you'd",
    "youd've": "you'd've",
    "you'dve": "you'd've",
    youll: "you'll",
    youre: "you're",
    youve: "you've",
  }),
);

/**
 * Punctuation beside a space, in the text as it was, is dropped; any other becomes a space. Where a comma
 * stands between digits, all of it is dropped.
 */
function processPunctuation(text: string, comma: RegExp): string {
  let result = text;
  if (ANY_PUNCTUATION.test(text)) {
    const inNumber = comma.test(text);
    for (const mark of PUNCTUATION) {
      if (!result.includes(mark)) continue;
      const dropped = inNumber || text.includes(`${mark} `) || text.includes(` ${mark}`);
      result = result.replaceAll(mark, dropped ? '' : ' ');
    }
  }
  if (!result.includes('.')) return result;
  let removed = 0;
  return result.replace(PERIOD, (period) => (removed++ < PERIODS_REMOVED ? '' : period));
}

/** Lower case, numbers up to ten in digits, no articles, apostrophes where they belong. */
const processDigitArticle = (text: string): string =>
  pythonSplit(text.toLowerCase())
    .map((word) => NUMBERS.get(word) ?? word)
    .filter((word) => !ARTICLES.has(word))
    .map((word) => CONTRACTIONS.get(word) ?? word)
    .join(' ');

/** The text on one line. */
const onOneLine = (text: string) => pythonStrip(text.replace(/[\n\t]/g, ' '));

/** As the VQA scorer compares answers where all ten agree. */
export const plainAnswer = onOneLine;

/** Answers that are kept with what they become: most come many times. */
const KEPT = 50_000;

function remembered(process: (text: string) => string): (text: string) => string {
  const known = new Map<string, string>();
  return (text) => {
    const found = known.get(text);
    if (found !== undefined) return found;
    if (known.size === KEPT) known.clear();
    const result = process(text);
    known.set(text, result);
    return result;
  };
}

/** As the VQA scorer compares answers where the ten differ. */
export const vqaAnswer = remembered((text) => processDigitArticle(processPunctuation(onOneLine(text), COMMA)));

/** As lmms-eval compares answers to VQAv2: the EvalAI processor without its first step. */
export const lmmsEvalAnswer = (text: string): string => processDigitArticle(processPunctuation(onOneLine(text), COMMAS));

/** What the EvalAI answer processor makes of an answer. */
export const evalAiAnswer = remembered((text) => {
  const words = pythonStrip(text.toLowerCase().replace(/[,?]/g, '').replaceAll("'s", " 's"));
  return processDigitArticle(processPunctuation(onOneLine(words), COMMAS));
});
