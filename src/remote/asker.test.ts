import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { expect, it } from 'vitest';
import { startChatServer, textOf } from '../../tests/chat-server.ts';
import { createEndpointAsker } from './asker.ts';
import { openEndpoint } from './endpoint.ts';

const says = (value: string, ...images: (string | Uint8Array)[]) => ({ turns: [{ from: 'human' as const, value }], images });

it('an endpoint is asked as a loaded model is, and what cannot be asked says why', async () => {
  const server = await startChatServer((request) => ` ${textOf(request)}!\n`);
  const endpoint = await openEndpoint({ url: server.url, apiKey: '', cache: false, pauses: [], concurrency: 1 });
  const asker = createEndpointAsker(endpoint);
  const text = join(tmpdir(), 'no-picture.png');
  writeFileSync(text, 'text');
  const heard: number[] = [];
  const onAnswers = (answers: readonly { index: number }[]) => heard.push(...answers.map(({ index }) => index));
  server.troubles = [
    { status: 200, body: '{"choices":[{"message":{"content":"first"}}]}' },
    { status: 400, body: '{"error":"too long"}' },
  ];
  const prompts = [says('a'), says('b'), says('c', text), says('d', (await asker.blankPicture()) as Uint8Array)];
  const answers = await asker.ask(prompts, { batchSize: 2, maxNewTokens: 9, onAnswers });
  expect(answers).toEqual([
    { text: 'first', promptTokens: undefined, tokens: undefined },
    { text: '', problem: `${server.url} refuses with status 400: too long` },
    { text: '', problem: `${text}: cannot be read as an image (Input buffer contains unsupported image format).` },
    { text: 'd!', promptTokens: 7, tokens: 3 },
  ]);
  expect(heard.sort()).toEqual([0, 1, 2, 3]);
  expect(server.asked.map(({ max_tokens }) => max_tokens)).toEqual([9, 9, 9]);
  const [{ image_url }] = server.asked[2].messages[0].content;
  const { channels } = await sharp(Buffer.from(image_url.url.split(',')[1], 'base64')).stats();
  expect(channels.map(({ min, max }) => [min, max])).toEqual([
    [122, 122],
    [116, 116],
    [104, 104],
  ]);

  const another = createEndpointAsker(endpoint);
  server.troubles = [{ status: 400, body: '{"error":"no pictures"}' }];
  await expect(another.ask(prompts, { batchSize: 2, maxNewTokens: 9 })).rejects.toThrow('refuses with status 400: no pictures');
  await server.close();
});
