import { cpSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import sharp from 'sharp';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { type Conversation, startConversation } from '../generate/conversation.ts';
import { longestAnswer } from '../generate/defaults.ts';
import { createSession } from '../generate/session.ts';
import { llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { initialize } from '../nn/parameters.ts';
import { loadModel } from '../pretrained/load.ts';
import { createRandom } from '../random.ts';
import { trainTokenizer } from '../text/bpe-trainer.ts';
import { converse, samplingOf } from './run/chat.ts';

const vocabSize = 380;
const folder = join(mkdtempSync(join(tmpdir(), 'chat-')), 'model');
const red = join(folder, '..', 'red.png');
const green = join(folder, '..', 'green.png');

/** A model of random weights: what it says is nonsense, but the same nonsense each time. */
beforeAll(async () => {
  const config = llavaConfigSchema.parse({
    vision_config: { hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, image_size: 16, patch_size: 8 },
    text_config: {
      vocab_size: vocabSize,
      hidden_size: 32,
      intermediate_size: 64,
      num_hidden_layers: 2,
      num_attention_heads: 2,
      num_key_value_heads: 1,
      head_dim: 16,
      max_position_embeddings: 64,
    },
    image_token_index: vocabSize,
  });
  const texts = ['how many things are in the picture there is a cat and a dog on the left of it'].map((line) => ({
    text: line,
    weight: 50,
  }));
  const { tokenizerJson, tokenizerConfig } = trainTokenizer(texts, { vocabSize });
  const tensors = new Map(
    llavaParameters(config).map((parameter) => {
      const data = initialize({ ...parameter, initializer: { kind: 'normal', std: 0.3 } }, createRandom(1, parameter.name));
      return [parameter.name, { shape: [...parameter.dims], data }];
    }),
  );
  const files = {
    'tokenizer.json': JSON.stringify(tokenizerJson),
    'tokenizer_config.json': JSON.stringify(tokenizerConfig),
    'preprocessor_config.json': JSON.stringify({ size: { shortest_edge: 16 }, crop_size: { height: 16, width: 16 } }),
  };
  await saveCheckpoint(folder, { config, tensors, dtype: 'F32', files });
  const square = (background: string) => sharp({ create: { width: 16, height: 16, channels: 3, background } }).png();
  await square('#f00').toFile(red);
  await square('#0f0').toFile(green);
});

const open = async (maxNewTokens = 8) => startConversation(createSession(await loadModel(folder)), { maxNewTokens });

/** The whole answer. */
async function ask(conversation: Conversation, question: string, onText: (piece: string) => void = () => {}): Promise<string> {
  let answer = '';
  for await (const piece of conversation.ask(question)) {
    onText(piece);
    answer += piece;
  }
  return answer;
}

describe('a conversation', () => {
  it('streams its answers, which depend on the picture and not on anything else', async () => {
    const conversation = await open();
    await conversation.show(red);
    const pieces: string[] = [];
    const answer = await ask(conversation, 'how many things?', (piece) => pieces.push(piece));
    expect(pieces.join('')).toBe(answer);
    expect(pieces.length).toBeGreaterThan(1);
    await conversation.show(green);
    expect(await ask(conversation, 'how many things?')).not.toBe(answer);
    await conversation.show(red);
    expect(await ask(conversation, 'how many things?')).toBe(answer);
  });

  it('remembers what was said, and forgets the oldest when it gets long', async () => {
    const conversation = await open();
    await conversation.show(red);
    const first = await ask(conversation, 'a cat');
    const second = await ask(conversation, 'a cat');
    expect(second).not.toBe(first);
    for (let i = 0; i < 6; i++) await ask(conversation, 'a cat');
    // What does not fit with anything said before is asked as if it were the first.
    const long = 'the cat and the dog on the left';
    const late = await ask(conversation, long);
    await conversation.show(red);
    expect(await ask(conversation, long)).toBe(late);
  });

  it('is about several pictures, in their order', async () => {
    const conversation = await open(20);
    const answers: string[] = [];
    for (const pictures of [[red, green], [green, red], [red], []]) {
      await conversation.show(...pictures);
      answers.push(await ask(conversation, 'how many things?'));
    }
    expect(new Set(answers).size).toBe(4);
    await conversation.show(red, green);
    expect(await ask(conversation, 'how many things?')).toBe(answers[0]);
    await expect(conversation.show(...new Array(20).fill(red)).then(() => ask(conversation, 'a cat'))).rejects.toThrow(
      'tokens with its pictures',
    );
  });

  it('refuses what cannot be asked, and goes on', async () => {
    const conversation = await open();
    await expect(ask(conversation, '<image> what?')).rejects.toThrow('leave <image> out');
    await expect(ask(conversation, 'zz'.repeat(80))).rejects.toThrow('tokens');
    await expect(conversation.show('nowhere.png')).rejects.toThrow('nowhere.png');
    await ask(conversation, 'a cat');
  });
});

it('reads questions line by line, and says on a terminal what is wrong with one without ending', async () => {
  const asked: string[] = [];
  const input = Object.assign(new PassThrough(), { isTTY: true });
  const output = new PassThrough();
  const conversation = await open();
  const shown: string[][] = [];
  const spied = {
    ...conversation,
    show: (...paths: string[]) => {
      shown.push(paths);
      return conversation.show(...paths);
    },
    ask: (question: string) => {
      asked.push(question);
      return conversation.ask(question);
    },
  };
  input.end(`/image ${red}\nhow many?\n\n/image ${red} ${green}\n/image nowhere.png\n<image>\na cat\n`);
  const said = text(output);
  await converse(spied, input, output);
  output.end();
  expect(asked).toEqual(['how many?', '<image>', 'a cat']);
  expect(shown).toEqual([[red], [red, green], ['nowhere.png']]);
  expect(await said).toContain('nowhere.png');
  expect(await said).toContain('leave <image> out');
  // Ctrl-D came before the answers: nothing is waited for any more
  expect((await said).endsWith('> ')).toBe(false);
  expect(input.readableFlowing).not.toBe(true);
});

it('ends at what is wrong where nobody looks on: what follows would be about another picture', async () => {
  const input = new PassThrough();
  const output = new PassThrough();
  const conversation = await open();
  const asked: string[] = [];
  const spied = {
    ...conversation,
    ask: (question: string) => {
      asked.push(question);
      return conversation.ask(question);
    },
  };
  input.end(`/image ${red}\nhow many?\n/image nowhere.png\na cat\n`);
  await expect(converse(spied, input, output)).rejects.toThrow('nowhere.png: there is no such image file');
  expect(asked).toEqual(['how many?']);
});

describe('the flags and generation_config.json', () => {
  const sampled = { stopTokenIds: [], temperature: 0.7, topK: 50, topP: 0.9, repetitionPenalty: 1.1 };

  it('has the flags count, and the file where they are silent', () => {
    expect(samplingOf({ seed: 1 }, sampled)).toEqual({ seed: 1, temperature: 0.7, topK: 50, topP: 0.9, repetitionPenalty: 1.1 });
    const flags = { seed: 1, temperature: 0.2, topK: 3, topP: 0.5, repetitionPenalty: 2 };
    expect(samplingOf(flags, sampled)).toEqual(flags);
    const greedy = { ...sampled, temperature: 0 };
    expect(samplingOf({ seed: 1, temperature: 0.5 }, greedy)).toMatchObject({ temperature: 0.5, topP: 0.9 });
  });

  it('refuses to choose among words where the likeliest is taken', () => {
    const greedy = { stopTokenIds: [], temperature: 0 };
    expect(() => samplingOf({ seed: 1, topK: 5 }, greedy)).toThrow(/^--top-k: .* --temperature above 0/);
    expect(() => samplingOf({ seed: 1, topP: 0.5, topK: 5, temperature: 0 }, sampled)).toThrow(/^--top-k and --top-p: /);
  });

  it('is greedy by itself, and with --temperature 0', () => {
    expect(samplingOf({ seed: 1 }, { stopTokenIds: [], temperature: 0 })).toBeUndefined();
    // the session knows the penalty of the file
    expect(samplingOf({ seed: 1, temperature: 0 }, sampled)).toBeUndefined();
    expect(samplingOf({ seed: 1, temperature: 0, repetitionPenalty: 1 }, sampled)).toMatchObject({ topK: 1, repetitionPenalty: 1 });
  });

  it('leaves room for the question', () => {
    expect(longestAnswer({}, 8192)).toBe(64);
    expect(longestAnswer({ ...sampled, maxNewTokens: 512 }, 8192)).toBe(512);
    expect(longestAnswer({ ...sampled, maxNewTokens: 8192 }, 8192)).toBe(4096);
  });
});

describe('loadModel', () => {
  it('packs the weights on request', async () => {
    const answersOf = async (quantize?: 'int4' | 'int8') => {
      const conversation = await startConversation(createSession(await loadModel(folder, { quantize })), { maxNewTokens: 12 });
      await conversation.show(red);
      return ask(conversation, 'how many things?');
    };
    const answer = await answersOf('int4');
    expect(answer).not.toBe('');
    expect(await answersOf('int4')).toBe(answer);
  });

  function broken(file: string, change: (json: Record<string, unknown>) => void): string {
    const copy = join(mkdtempSync(join(tmpdir(), 'broken-')), 'model');
    cpSync(folder, copy, { recursive: true });
    const json = JSON.parse(readFileSync(join(copy, file), 'utf8'));
    change(json);
    writeFileSync(join(copy, file), JSON.stringify(json));
    return copy;
  }

  it('names the tensor that does not fit', async () => {
    const copy = broken('config.json', (json) => {
      (json.text_config as Record<string, unknown>).intermediate_size = 48;
    });
    await expect(loadModel(copy)).rejects.toThrow(/mlp\.\w+_proj\.weight has shape \[64, 32\], but config\.json asks for \[48, 32\]/);
  });

  it('names the field that is wrong', async () => {
    const copy = broken('config.json', (json) => {
      json.vision_feature_select_strategy = 'patch';
    });
    await expect(loadModel(copy)).rejects.toThrow('config.json: vision_feature_select_strategy');
  });

  it('wants one <image> token', async () => {
    const copy = broken('config.json', (json) => {
      json.image_token_index = 9;
    });
    await expect(loadModel(copy)).rejects.toThrow('<image> is 9 in config.json');
  });

  it('ends answers where generation_config.json, or else config.json, says', async () => {
    const answerOf = async (dir: string) => {
      const conversation = startConversation(createSession(await loadModel(dir)), { maxNewTokens: 12 });
      await conversation.show(red);
      return ask(conversation, 'how many things?');
    };
    const whole = await answerOf(folder);
    const vocabulary = Object.entries(
      JSON.parse(readFileSync(join(folder, 'tokenizer.json'), 'utf8')).model.vocab as Record<string, number>,
    );
    const copy = broken('config.json', () => {});
    const ends = (ids: number[]) => writeFileSync(join(copy, 'generation_config.json'), JSON.stringify({ eos_token_id: ids }));
    ends(vocabulary.map(([, id]) => id));
    expect(await answerOf(copy)).toBe('');
    // the list replaces that of config.json
    ends([1]);
    expect(await answerOf(copy)).toBe(whole);
    const inConfig = broken('config.json', ({ text_config }) => {
      Object.assign(text_config as object, { eos_token_id: vocabulary.map(([, id]) => id) });
    });
    expect(await answerOf(inConfig)).toBe('');
    ends(['x'] as never);
    await expect(loadModel(copy)).rejects.toThrow('generation_config.json: eos_token_id: must be a token id or a list of them');
  });

  it('says that a template is not the folder’s own', async () => {
    const warn = vi.spyOn(console, 'error').mockImplementation(() => {});
    await loadModel(folder);
    expect(warn).not.toHaveBeenCalled();
    const copy = broken('tokenizer_config.json', (json) => delete json.chat_template);
    await loadModel(copy);
    expect(warn.mock.calls).toEqual([[`warning: ${copy}: none of its files has a chat template: Gemma's is used`]]);
    warn.mockRestore();
  });

  it('names the folder that is not there', async () => {
    await expect(loadModel('no-such-folder')).rejects.toThrow('no-such-folder: no such folder');
  });
});
