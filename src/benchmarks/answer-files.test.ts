import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readAnswers } from './answer-files.ts';

const folder = mkdtempSync(join(tmpdir(), 'answers-'));
const form = { id: 'image', answer: 'answer', about: 'results (image and answer)' };
const read = (content: string) => {
  const path = join(folder, 'given.json');
  writeFileSync(path, content);
  return readAnswers(path, form);
};
const own = [{ id: 'a', text: ' yes', submitted: true, where: expect.any(String) }];

describe('answers in files', () => {
  it('are read in every form in which they are written', async () => {
    expect(await read('[{"image": "a", "answer": " yes", "more": 1}]')).toEqual(own);
    expect(await read('\ufeff[\r\n{"image": "a", "answer": " yes"}\r\n]\r\n')).toEqual([{ ...own[0], where: 'given.json:2' }]);
    expect(await read('{"image": "a", "answer": " yes"}\n')).toEqual(own);
    expect(await read('{"a": " yes"}')).toEqual(own);
    expect(await read('{"a": {"answer": " yes"}}')).toEqual(own);
    expect(await read('[{"image": 12, "answer": 3}]')).toMatchObject([{ id: '12', text: '3' }]);
    const llava = '{"question_id": 7, "prompt": "p", "text": "Yes", "answer_id": "x", "model_id": "m", "metadata": {}}';
    for (const content of [llava, `${llava}\r\n\r\n`, `[${llava}]`]) {
      const [line] = await read(content);
      expect(line).toMatchObject({ id: '7', text: 'Yes', prompt: 'p' });
      expect(line.submitted).toBeUndefined();
    }
  });

  it('are found in a folder of one file, of parts, or of parts and all', async () => {
    const place = join(folder, 'merged');
    mkdirSync(place);
    const put = (name: string, id: number) => writeFileSync(join(place, name), JSON.stringify({ question_id: id, text: 'x' }));
    const ids = async () => (await readAnswers(place, form)).map(({ id }) => id);
    await expect(ids()).rejects.toThrow(/there is no .json or .jsonl in it/);
    put('2_0.jsonl', 0);
    expect(await ids()).toEqual(['0']);
    put('2_1.jsonl', 1);
    expect(await ids()).toEqual(['0', '1']);
    put('other.jsonl', 2);
    await expect(ids()).rejects.toThrow(/is a folder, of which one file is meant: 2_0.jsonl, 2_1.jsonl, other.jsonl/);
    put('merge.jsonl', 3);
    expect(await ids()).toEqual(['3']);
    await expect(readAnswers(join(folder, 'none'), form)).rejects.toThrow(/no such file/);
  });

  it('are refused with their place', async () => {
    await expect(read('[{"image": "a", "answer": "x"},\n{"image": "b", "answer": null}]')).rejects.toThrow(
      /given.json:2: answer is not a text/,
    );
    await expect(read('[{"answer": "x"}]')).rejects.toThrow(
      /given.json, entry 1: has no image; the file should be LLaVA's answers .*results/,
    );
    await expect(read('[{"image": "a"}]')).rejects.toThrow(/entry 1: answer is missing/);
    await expect(read('[["a", "b"]]')).rejects.toThrow(/entry 1: has no image/);
    await expect(read('{"question_id": 1, "text": "a"}\n{"question_id": 2, "text": null}')).rejects.toThrow(/given.json:2: /);
    expect(await read('{"question_id": 1, "text": 2}')).toMatchObject([{ id: '1', text: '2' }]);
    await expect(read('{"question_id": 1, "image": "a.jpg", "text": "What?"}')).rejects.toThrow(/this is a question, not an answer/);
    await expect(read('image,answer\na,yes')).rejects.toThrow(/is not JSON; it should be LLaVA's answers/);
  });
});
