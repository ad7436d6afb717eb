// Words of captions as the COCO caption evaluation counts them: it takes captions apart with the PTBTokenizer
// of Stanford CoreNLP 3.4.1 (-preserveLines -lowerCase) and drops punctuation (ptbtokenizer.py of
// tylin/coco-caption). These are rules of our own for what that tokenizer does to everyday English;
// docs/published-benchmarks.md says how often the two differ.

/** Punctuation of CoreNLP that the evaluation drops. Brackets stay: they are in lower case by then. */
const DROPPED = new Set(["'", '.', '?', '!', ',', ':', '-', '--', '...', ';']);

const APOSTROPHE = "['\\u2019]";
const ENDING = `${APOSTROPHE}(?:s|m|d|re|ve|ll)`;
const WORD = '[\\p{L}\\p{M}]+';
const PART = '[\\p{L}\\p{M}\\d]+';
/** Abbreviations that keep their full stop, beside single letters. */
const ABBREVIATIONS =
  'mr|mrs|ms|dr|prof|rev|gen|col|lt|sgt|capt|gov|sen|st|mt|ave|blvd|rd|jr|sr|inc|co|corp|ltd|vs|etc|no|ft|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tue|wed|thu|fri';

type Write = (token: string) => string;
const same: Write = (token) => token;
const as =
  (token: string): Write =>
  () =>
    token;
/** A slash or a star has a backslash before it, and a token no space. */
const escaped: Write = (token) => token.replace(/[/*]/g, '\\$&').replaceAll(' ', '\u00a0');

/** Forms of tokens. The longest that fits is taken, with what must follow it (in a second group) counted. */
const FORMS: readonly [RegExp, Write][] = (
  [
    ['(can)(not)', same],
    [`(${WORD})`, american],
    [`(${WORD})(${ENDING})`, american],
    [`(\\p{L}*[^\\W\\dn_])(n${APOSTROPHE}t)`, same],
    [`(n${APOSTROPHE}t|${ENDING})`, same],
    // black-and-white, t_shirt, 2nd; a comma without a space may stand before
    [`(${PART}(?:[-_]${PART})*)`, same],
    ['([a-z\\d][a-z\\d.,]*(?:-[a-z\\d]+)+)', same],
    [`([dlo]${APOSTROPHE}${PART}(?:-${PART})*)`, same],
    [`(${APOSTROPHE}(?:n${APOSTROPHE}?|em|till?|cause|twas|\\d0s)|c${APOSTROPHE}mon|y${APOSTROPHE})`, same],
    ['([-+]?(?:\\d*(?:[.,:]\\d+)+|\\d+))', same],
    [`(${PART}(?:-${PART})*(?:/${PART}(?:-${PART})*){1,2})`, escaped],
    ['(\\d{1,4} \\d{1,4}/\\d{1,4})', escaped],
    [`((?:${ABBREVIATIONS}|\\p{L}(?:\\.\\p{L})*)\\.)`, same],
    ['(\\p{L}(?:\\.\\p{L})+)(\\s|$)', same],
    [`(${WORD}\\.)([,;:])`, same],
    ['((?:https?://|www\\.)\\S*[\\p{L}\\d/])', escaped],
    ['([\\p{L}\\d]+\\.(?:com|org|net|edu)(?:/\\S*[\\p{L}\\d/])?)', escaped],
    [`([@#]${WORD})`, same],
    ['(</?[a-z][^>]*>)', escaped],
    ['(&amp;)', as('&')],
    ['([\\u2013-\\u2015])', as('--')],
    ['(---?-?)', as('--')],
    ['(-+|,|;|:|=|\\$|[?!]+|@+|#+|_+|[.%&+~^|\\\\\\u00b0])', same],
    ['(\\.{3,5}|\\u2026|(?:\\. ){2,4}\\.)', as('...')],
    ['(\\*+|/)', escaped],
    ['(["\'`\\u2018-\\u201f\\u00ab\\u00bb])', as("'")],
    ['([(<[])', as('-lrb-')],
    ['([)>\\]])', as('-rrb-')],
    ['(\\{)', as('-lcb-')],
    ['(\\})', as('-rcb-')],
    ['(\\u00a3)', as('#')],
    ['(\\u20ac)', as('$')],
  ] as [string, Write][]
).map(([source, write]) => [new RegExp(source, 'iuy'), write]);

/** British spellings that captions have, beside -our. */
const BRITISH = new Map(
  Object.entries({
    grey: 'gray',
    theatre: 'theater',
    theatres: 'theaters',
    centre: 'center',
    kerb: 'curb',
    fibre: 'fiber',
    coloured: 'colored',
    colourful: 'colorful',
    colouring: 'coloring',
    favourite: 'favorite',
    flavoured: 'flavored',
    neighbourhood: 'neighborhood',
    travelling: 'traveling',
    travelled: 'traveled',
    labelled: 'labeled',
  }),
);

/** colour -> color, as CoreNLP does with words in lower case. */
function american(word: string): string {
  const known = BRITISH.get(word);
  if (known !== undefined) return known;
  if (!word.includes('our') || /contour|detour|devour|glamour|downpour|velour/.test(word)) return word;
  return word.replace(/^([a-z]{3,})our(s?)$/, '$1or$2');
}

/** Most tokens are words between spaces, which need no rules. */
const PLAIN_WORD = /([A-Za-z]+)(?: |$)/y;

/** The tokens of one line, in lower case, without punctuation and joined by spaces. */
export function captionTokens(caption: string): string {
  const text = caption.replace(/[\n\r]/g, ' ');
  const tokens: string[] = [];
  let at = 0;
  const push = (token: string) => {
    const lower = token.toLowerCase();
    if (!DROPPED.has(lower)) tokens.push(lower);
  };
  while (at < text.length) {
    PLAIN_WORD.lastIndex = at;
    const plain = PLAIN_WORD.exec(text);
    if (plain && plain[1].toLowerCase() !== 'cannot') {
      push(american(plain[1]));
      at += plain[0].length;
      continue;
    }
    let [longest, taken, token] = [0, 0, ''];
    for (const [form, write] of FORMS) {
      form.lastIndex = at;
      const match = form.exec(text);
      if (!match || match[0].length <= longest) continue;
      [longest, taken, token] = [match[0].length, match[1].length, write(match[1])];
    }
    if (longest > 0) push(token);
    at += Math.max(taken, 1);
  }
  return tokens.join(' ');
}
