// The rows of all layers of a model, which together are larger than memory: in scratch files, a layer's
// image rows and text rows each in one, written as prompts are read.

import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onDisk } from '../disk.ts';
import type { Rows } from './matrices.ts';

const KINDS = ['image', 'text'] as const;
type Kind = (typeof KINDS)[number];

export interface RowFiles {
  /** UserError where the disk is full. */
  add(layer: number, kind: Kind, rows: Rows): void;
  /** All rows of a layer that were added. */
  read(layer: number, kind: Kind): Rows;
  remove(): void;
}

/** Files for rows of `width` numbers, in the system's folder for temporary files (TMPDIR). */
export function createRowFiles(width: number): RowFiles {
  const folder = onDisk(tmpdir(), () => mkdtempSync(join(tmpdir(), `llava-gemma-rows-${process.pid}-`)));
  const pathOf = (layer: number, kind: Kind) => join(folder, `${layer}.${kind}`);
  return {
    add(layer, kind, { data }) {
      const bytes = Float32Array.from(data);
      onDisk(folder, () => appendFileSync(pathOf(layer, kind), new Uint8Array(bytes.buffer)));
    },
    read(layer, kind) {
      const bytes = onDisk(folder, () => readFileSync(pathOf(layer, kind)));
      const data = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
      return { data, count: data.length / width, width };
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
