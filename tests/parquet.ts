// Parquet files in the form of the Hugging Face data sets, made for tests.

import { writeFileSync } from 'node:fs';
import { parquetWriteBuffer } from 'hyparquet-writer';

type SchemaElement = NonNullable<Parameters<typeof parquetWriteBuffer>[0]['schema']>[number];

/** A picture as the library `datasets` stores it. */
export type StoredPicture = { bytes: Uint8Array; path: string } | null;

const text = { type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' } as const;
const bytes = { type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' } as const;

/** Writes columns of text, whole numbers or pictures (those named in `pictures`). */
export function writeParquet(
  path: string,
  columns: Record<string, readonly unknown[]>,
  { pictures = [], rowGroupSize = 2 }: { pictures?: readonly string[]; rowGroupSize?: number } = {},
): void {
  const names = Object.keys(columns);
  const schema = names.flatMap((name): SchemaElement[] => {
    if (pictures.includes(name))
      return [
        { name, num_children: 2, repetition_type: 'OPTIONAL' },
        { name: 'bytes', ...bytes },
        { name: 'path', ...text },
      ];
    const isNumber = typeof columns[name].find((value) => value !== null) === 'number';
    return [isNumber ? { name, type: 'INT64', repetition_type: 'OPTIONAL' } : { name, ...text }];
  });
  const columnData = names.map((name) => ({
    name,
    data: columns[name].map((value) => (typeof value === 'number' ? BigInt(value) : value)),
  }));
  const buffer = parquetWriteBuffer({ columnData, schema: [{ name: 'root', num_children: names.length }, ...schema], rowGroupSize });
  writeFileSync(path, Buffer.from(buffer));
}
