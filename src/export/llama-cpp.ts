// A LLaVA as llama.cpp's two files: the language model with its tokenizer, and encoder with connector
// (mmproj).

import { statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { replaceFolder } from '../checkpoint/checkpoint.ts';
import { type GgufTensorType, writeGguf } from './gguf.ts';
import { languageGguf, string } from './gguf-language.ts';
import { type ClassToken, visionGguf } from './gguf-vision.ts';
import { checkDtypes, newFolder } from './new-folder.ts';
import type { ExportSource } from './source.ts';

export const GGUF_DTYPES = ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0'] as const satisfies GgufTensorType[];

/** Of the encoder, which is small beside the language model, and whose errors hurt every answer. */
const ENCODER_TYPE: Readonly<Record<GgufTensorType, GgufTensorType>> = { F32: 'F32', F16: 'F16', BF16: 'F16', Q8_0: 'F16', Q4_0: 'F16' };

/** Names of the files of a dtype. */
export const ggufFiles = (dtype: GgufTensorType) => ({ model: `model-${dtype}.gguf`, mmproj: `mmproj-${ENCODER_TYPE[dtype]}.gguf` });

export interface LlamaCppOptions {
  dtypes: readonly GgufTensorType[];
  classToken?: ClassToken;
  onFile?: (name: string, bytes: number) => void;
}

/**
 * Writes the folder `out`; it is there complete or not at all. UserError for what llama.cpp would compute
 * otherwise.
 */
export async function exportLlamaCpp(source: ExportSource, out: string, { dtypes, classToken, onFile }: LlamaCppOptions): Promise<void> {
  checkDtypes(dtypes, GGUF_DTYPES);
  await replaceFolder(newFolder(out), async (folder) => {
    const written = new Set<string>();
    const write = async (name: string, { metadata, tensors }: Awaited<ReturnType<typeof visionGguf>>) => {
      if (written.has(name)) return;
      written.add(name);
      const path = join(folder, name);
      await writeGguf(path, { ...metadata, 'general.name': string(basename(source.dir)) }, tensors);
      onFile?.(name, statSync(path).size);
    };
    for (const dtype of dtypes) {
      const { model, mmproj } = ggufFiles(dtype);
      await write(model, languageGguf(source, dtype));
      await write(mmproj, await visionGguf(source, ENCODER_TYPE[dtype], classToken));
    }
  });
}
