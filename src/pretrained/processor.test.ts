import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { readImageProcessor, requireImageProcessor } from './processor.ts';

const scratch = mkdtempSync(join(tmpdir(), 'processor-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** A folder with these files. */
function folder(files: Record<string, unknown>): string {
  const dir = mkdtempSync(join(scratch, 'folder-'));
  for (const [name, value] of Object.entries(files)) writeFileSync(join(dir, name), JSON.stringify(value));
  return dir;
}

// AutoImageProcessor of transformers 5.18 takes the same from folders with these files
describe('readImageProcessor', () => {
  const clip = { image_processor_type: 'CLIPImageProcessor', resample: 3 };
  const nested = { image_processor_type: 'CLIPImageProcessor', resample: 2 };

  test.each([
    ['preprocessor_config.json', { 'preprocessor_config.json': clip }, clip],
    [
      'preprocessor_config.json',
      { 'preprocessor_config.json': clip, 'processor_config.json': { processor_class: 'LlavaProcessor' } },
      clip,
    ],
    ['preprocessor_config.json', { 'preprocessor_config.json': clip, 'processor_config.json': { image_processor: null } }, clip],
    ['processor_config.json', { 'processor_config.json': { image_processor: nested } }, nested],
    ['processor_config.json', { 'preprocessor_config.json': clip, 'processor_config.json': { image_processor: nested } }, nested],
  ])('takes it from %s of %j', async (file, files, value) => {
    const dir = folder(files);
    expect(await readImageProcessor(dir, 'llava')).toEqual({ file: join(dir, file), value });
  });

  test('has the model decide the class of one that names none', async () => {
    const dir = folder({ 'preprocessor_config.json': { resample: 2 } });
    expect((await readImageProcessor(dir, 'siglip'))?.value).toEqual({ image_processor_type: 'SiglipImageProcessor', resample: 2 });
    expect((await readImageProcessor(dir, 'llava'))?.value).toEqual({ resample: 2 });
  });

  test('says which file is missing', async () => {
    const dir = folder({ 'processor_config.json': { processor_class: 'LlavaProcessor' } });
    expect(await readImageProcessor(dir, 'llava')).toBeUndefined();
    await expect(requireImageProcessor(dir, 'llava')).rejects.toThrow(
      `${join(dir, 'preprocessor_config.json')}: no such file, and no image_processor in a processor_config.json`,
    );
  });
});
