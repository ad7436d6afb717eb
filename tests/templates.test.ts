// Chat templates as AutoProcessor of transformers finds and applies them (tests/reference/make_templates.py).

import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { readTokenizerFiles } from '../src/checkpoint/tokenizer-files.ts';
import { encodePrompt, renderSegments, type Turn, withImages } from '../src/text/chat.ts';
import { gemmaChatTemplate } from '../src/text/chat-template.ts';
import { createTokenizer } from '../src/text/tokenizer.ts';

const { folders, prompts } = JSON.parse(readFileSync(new URL('reference/templates.json', import.meta.url), 'utf8')) as {
  folders: { files: Record<string, unknown>; template: string | null }[];
  prompts: { template: string; images: number; turns: string[]; ids: number[] }[];
};

const scratch = mkdtempSync(join(tmpdir(), 'templates-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const embedded = fileURLToPath(new URL('../assets/tokenizer', import.meta.url));

/** The tokenizer of a folder with the embedded one, without its template, and these files in addition. */
async function tokenizerOf(files: Record<string, unknown>) {
  const dir = mkdtempSync(join(scratch, 'folder-'));
  cpSync(join(embedded, 'tokenizer.json'), join(dir, 'tokenizer.json'));
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
  return createTokenizer(tokenizerJson, tokenizerConfig);
}

describe('a chat template', () => {
  test.each(folders.map(({ files, template }) => [Object.keys(files).join(', ') || 'nothing', files, template] as const))(
    'is found among %s',
    async (_, files, template) => {
      expect((await tokenizerOf(files)).chatTemplate).toBe(template ?? gemmaChatTemplate);
    },
  );

  test('without a name that says it is for answering is an error', async () => {
    const named = { 'tokenizer_config.json': { chat_template: [{ name: 'tool_use', template: 'x' }] } };
    await expect(tokenizerOf(named)).rejects.toThrow('the chat templates are called tool_use: the one to be used must be called default');
  });

  test.each(prompts)('gives the ids of AutoProcessor: $images pictures, $turns', async ({ template, images, turns, ids }) => {
    const tokenizer = await tokenizerOf({ 'chat_template.jinja': template });
    const asked = turns.map((value, i): Turn => ({ from: i % 2 === 0 ? 'human' : 'gpt', value }));
    expect(encodePrompt(tokenizer, withImages(asked, images), 4)).toEqual(ids);
  });

  test.each([...new Set(prompts.map(({ template }) => template))])('has its answers located for training: %s', async (template) => {
    const tokenizer = await tokenizerOf({ 'chat_template.jinja': template });
    const turns: Turn[] = [
      { from: 'human', value: '<image>\nWhat is it?' },
      { from: 'gpt', value: 'a cat' },
    ];
    const [question, answer, ...rest] = renderSegments(tokenizer, turns, 'here');
    expect([question.isAnswer, answer.isAnswer, rest]).toEqual([false, true, []]);
    expect(question.text).toMatch(/<image>\n?What is it\?/);
    expect(answer.text).toContain('a cat');
  });
});
