import fc from 'fast-check';
import { expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { trainTokenizer } from './bpe-trainer.ts';
import { encodePrompt, renderSegments, type Turn } from './chat.ts';
import { encodeConversation, ignoreIndex } from './labels.ts';
import { createTokenizer, type Tokenizer } from './tokenizer.ts';

const trained = trainTokenizer([{ text: 'what is at the top left? a red apple user model', weight: 40 }], { vocabSize: 390 });
const tokenizer = createTokenizer(trained.tokenizerJson, trained.tokenizerConfig);

/** As in the real Gemma: runs of line breaks are tokens of their own. */
function withNewlineRuns(): Tokenizer {
  const json = structuredClone(trained.tokenizerJson) as { added_tokens: unknown[]; model: { vocab: Record<string, number> } };
  for (const [i, content] of ['\n\n', '\n\n\n'].entries()) {
    json.added_tokens.push({ id: 400 + i, content, special: false, normalized: false, single_word: false, lstrip: false, rstrip: false });
  }
  return createTokenizer(json, trained.tokenizerConfig);
}

const human = (value: string): Turn => ({ from: 'human', value });
const gpt = (value: string): Turn => ({ from: 'gpt', value });
const tokens = (ids: readonly number[]) => ids.map((id) => tokenizer.token(id));
const trainedTokens = (labels: readonly number[]) => tokens(labels.filter((label) => label !== ignoreIndex));

test('the Gemma form of one question: ids, labels and prefix, token by token', () => {
  const sample = encodeConversation(tokenizer, [human('<image>\nwhat is?'), gpt('a red')], { imageTokens: 2 });
  expect(tokens(sample.inputIds)).toEqual(
    ['<bos>', '<start_of_turn>', 'user', '\n', '<image>', '<image>', '\n', 'what', '▁is', '?', '<end_of_turn>', '\n'].concat([
      '<start_of_turn>',
      'model',
      '\n',
      'a',
      '▁red',
      '<end_of_turn>',
      '\n',
    ]),
  );
  expect(trainedTokens(sample.labels)).toEqual(['a', '▁red', '<end_of_turn>', '\n']);
  expect(sample.labels.slice(0, 15)).toEqual(new Array(15).fill(ignoreIndex));
  expect(sample.prefixLength).toBe(7);
});

test('the plain form: `<bos><image>caption\\n`, whatever the human says', () => {
  const sample = encodeConversation(tokenizer, [human('<image>\nwhat?'), gpt('a red apple')], { imageTokens: 3, template: 'plain' });
  expect(tokens(sample.inputIds)).toEqual(['<bos>', '<image>', '<image>', '<image>', 'a', '▁red', '▁apple', '\n']);
  expect(trainedTokens(sample.labels)).toEqual(['a', '▁red', '▁apple', '\n']);
  expect(sample.prefixLength).toBe(4);
  const plain = (...turns: Turn[]) => encodeConversation(tokenizer, turns, { imageTokens: 3, template: 'plain', sampleId: 'x' });
  expect(plain(human('<image>'), gpt(' \n a red apple\n\n'))).toEqual(sample);
  const [ask, answer] = [human('<image>'), gpt('a')];
  // the rows of a second picture would have no places
  for (const turns of [
    [human('<image>\n<image>'), answer],
    [human('what?'), answer],
    [ask],
    [ask, answer, ask, answer],
    [gpt('<image>'), answer],
    [ask, human('a')],
  ])
    expect(() => plain(...turns)).toThrow(/sample "x": the plain template needs/);
});

test('what is not trained is -100, which packing and cross-entropy know', () => {
  expect(ignoreIndex).toBe(-100);
});

test('the prefix that is shared begins the conversation, white space aside', () => {
  const prefixOf = (question: string) => encodeConversation(tokenizer, [human(question), gpt('a')], { imageTokens: 2 }).prefixLength;
  expect(prefixOf('<image>\nwhat is?')).toBe(7);
  expect(prefixOf(' \n<image>\nwhat is?')).toBe(7);
  // a line break follows the image, but the image follows words
  expect(prefixOf('what is?\n<image>\nat the left')).toBe(0);
  expect(prefixOf('<image> what is?')).toBe(0);
});

test('a question that waits for its answer at the end is in the sample, and is not trained', () => {
  const turns = [human('what is?'), gpt('a red'), human('at the left?')];
  const { inputIds, labels } = encodeConversation(tokenizer, turns, { imageTokens: 1 });
  expect(tokenizer.decode(inputIds)).toMatch(/a red<end_of_turn>\n<start_of_turn>user\nat the left\?<end_of_turn>\n$/);
  expect(trainedTokens(labels)).toEqual(['a', '▁red', '<end_of_turn>', '\n']);
  expect(renderSegments(tokenizer, turns, 'x').map(({ isAnswer }) => isAnswer)).toEqual([false, true, false]);
  // and one that ends with an answer has nothing behind it
  expect(renderSegments(tokenizer, turns.slice(0, 2), 'x').map(({ isAnswer }) => isAnswer)).toEqual([false, true]);
});

const content = fc.oneof(
  fc.constantFrom('', '\n', '\na red', 'a\n\nred ', ' apple', '▁', '\n\n\n', 'a red apple 🍎', 'naïve\r\n', '<0x41>', '\u3000x', '<end'),
  fc.string({ unit: 'grapheme', maxLength: 20 }).filter((text) => !/<(image|bos|\/?[a-z_]+)>/.test(text)),
);
const conversation = fc.array(fc.tuple(content, content), { minLength: 1, maxLength: 3 }).chain((rounds) =>
  fc.constantFrom('first', 'last', 'none').map((image) => {
    const turns = rounds.flatMap(([question, answer]) => [human(question), gpt(answer)]);
    if (image === 'first') turns[0].value = `<image>\n${turns[0].value}`;
    if (image === 'last') turns[0].value = `${turns[0].value}\n<image>`;
    return { turns, image };
  }),
);

test.each([
  ['the tiny tokenizer', tokenizer],
  ['a tokenizer with runs of line breaks', withNewlineRuns()],
])('with %s, the segments are encoded as the whole text would be, and exactly the answers are trained', (_, used) => {
  fc.assert(
    fc.property(conversation, ({ turns, image }) => {
      const { inputIds, labels, prefixLength } = encodeConversation(used, turns, { imageTokens: 1 });
      const text = `<bos>${turns
        .map(({ from, value }) => `<start_of_turn>${from === 'human' ? 'user' : 'model'}\n${value.trim()}<end_of_turn>\n`)
        .join('')}`;
      expect(inputIds).toEqual(used.encode(text));
      expect(inputIds.filter((id) => id === used.bosTokenId)).toHaveLength(1);
      const answers = turns.filter((turn) => turn.from === 'gpt').map((turn) => `${turn.value.trim()}<end_of_turn>\n`);
      const trainedText = used.decode(labels.filter((label) => label !== ignoreIndex));
      expect(trainedText).toBe(answers.join('').replaceAll('▁', ' '));
      expect(labels.every((label, i) => label === ignoreIndex || label === inputIds[i])).toBe(true);
      if (image !== 'first') expect(prefixLength).toBe(0);
      else if (!/^\s/.test(turns[0].value.slice('<image>\n'.length))) {
        const end = turns[0].value === '<image>\n' ? 0 : 6; // an empty question loses its line break to the template's trim
        expect(prefixLength).toBe(end);
        if (end > 0) expect(used.decode(inputIds.slice(0, end))).toBe('<bos><start_of_turn>user\n<image>\n');
      }
    }),
    { numRuns: 300 },
  );
});

test('a prompt is exactly what comes before each answer in training', () => {
  fc.assert(
    fc.property(conversation, fc.integer({ min: 1, max: 5 }), ({ turns }, imageTokens) => {
      const { inputIds, labels } = encodeConversation(tokenizer, turns, { imageTokens });
      for (let i = 1; i < turns.length; i += 2) {
        const prompt = encodePrompt(tokenizer, turns.slice(0, i), imageTokens);
        expect(inputIds.slice(0, prompt.length)).toEqual(prompt);
        expect(labels[prompt.length - 1]).toBe(ignoreIndex);
        expect(labels[prompt.length]).not.toBe(ignoreIndex);
      }
    }),
    { numRuns: 60 },
  );
});

test('a conversation cut at the maximum length keeps its beginning; one whose image or answer would be lost is refused by name', () => {
  const turns = [human('<image>\nwhat is?'), gpt('a red apple')];
  const whole = encodeConversation(tokenizer, turns, { imageTokens: 4 });
  const cut = encodeConversation(tokenizer, turns, { imageTokens: 4, maxLength: 18 });
  expect(cut).toEqual({ inputIds: whole.inputIds.slice(0, 18), labels: whole.labels.slice(0, 18), prefixLength: 9 });
  const options = { imageTokens: 4, sampleId: '000123' };
  expect(() => encodeConversation(tokenizer, turns, { ...options, maxLength: 17 })).toThrow(
    /sample "000123": nothing of it would be trained: its first answer begins beyond the maximum length 17/,
  );
  expect(() => encodeConversation(tokenizer, turns, { ...options, maxLength: 7 })).toThrow(/sample "000123": its image ends at token 8/);
  // the image ends exactly at the limit: the answer is what is lost
  expect(() => encodeConversation(tokenizer, turns, { ...options, maxLength: 8 })).toThrow(/first answer begins beyond .* length 8$/);
});

test('a sample has as many tokens as the maximum length allows, and never one more', () => {
  const turns = [human('<image>\nwhat is?'), gpt('a red apple at the left'), human('what?'), gpt('a red apple')];
  const whole = encodeConversation(tokenizer, turns, { imageTokens: 4 });
  const { length } = whole.inputIds;
  for (let maxLength = 18; maxLength <= length + 2; maxLength++) {
    const { inputIds, labels, prefixLength } = encodeConversation(tokenizer, turns, { imageTokens: 4, maxLength });
    expect(inputIds).toEqual(whole.inputIds.slice(0, maxLength));
    expect(labels).toEqual(whole.labels.slice(0, maxLength));
    expect(inputIds).toHaveLength(Math.min(maxLength, length));
    expect(prefixLength).toBe(9);
  }
});

test('turns that no template can lay out are refused by name', () => {
  const options = { imageTokens: 1, sampleId: 'a' };
  const refused = (turns: Turn[], pattern: RegExp) => {
    expect(() => encodeConversation(tokenizer, turns, options)).toThrow(UserError);
    expect(() => encodeConversation(tokenizer, turns, options)).toThrow(pattern);
  };
  refused([], /sample "a": the conversation has no human turn/);
  refused([human('what?')], /sample "a": nothing of it would be trained: it has no gpt turn/);
  refused([human('what?'), human('is?'), gpt('a')], /sample "a": the chat template refuses the conversation: .*alternate/);
  refused([{ from: 'system' as 'human', value: 'x' }], /sample "a": a turn is from "system"/);
  expect(() => encodeConversation(tokenizer, [human('what?')], { imageTokens: 1 })).toThrow(/^the sample: nothing of it/);
});

test('a first turn of the model is dropped, as LLaVA does', () => {
  const turns = [human('what?'), gpt('a')];
  expect(encodeConversation(tokenizer, [gpt('hello'), ...turns], { imageTokens: 1 })).toEqual(
    encodeConversation(tokenizer, turns, { imageTokens: 1 }),
  );
});

test('a template that emits no `<bos>` gets one, a template that rewrites earlier turns is refused', () => {
  const noBos = { ...tokenizer, chatTemplate: tokenizer.chatTemplate.replace('{{ bos_token }}', '') };
  const turns = [human('what?'), gpt('a')];
  expect(renderSegments(noBos, turns, 'x')).toEqual(renderSegments(tokenizer, turns, 'x'));
  const counting = {
    ...tokenizer,
    chatTemplate: '{{ bos_token }}{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}',
  };
  expect(() => renderSegments(counting, turns, 'x')).toThrow(/rewrites earlier turns/);
});

test.each([
  ['nothing', ''],
  ['no pictures', "{% for message in messages %}{{ message['content'] | replace('<image>', '') }}{% endfor %}"],
])('a chat template that writes %s is refused', (_, template) => {
  const other = createTokenizer(trained.tokenizerJson, { ...trained.tokenizerConfig, chat_template: template });
  const turns = [human('<image>\nwhat is?'), gpt('a red')];
  const message = 'the chat template writes 0 of the 1 places for pictures: it must leave <image> where it is';
  expect(() => encodePrompt(other, turns.slice(0, 1), 2)).toThrow(`the conversation: ${message}`);
  expect(() => encodeConversation(other, turns, { imageTokens: 2, sampleId: 'a' })).toThrow(`sample "a": ${message}`);
});
