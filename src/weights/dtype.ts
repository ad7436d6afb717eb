// The dtypes of the safetensors format that this project reads, and their sizes.

/** The dtypes of the safetensors format that this project reads, by their names in the file. */
export type StoredDType = 'F64' | 'F32' | 'F16' | 'BF16' | 'I64' | 'I32' | 'I16' | 'I8' | 'U8' | 'BOOL';

/** Bytes per element. */
export const bytesPerElement: Readonly<Record<StoredDType, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

/** Float types in which weights are written: names in config.json, and in safetensors files. */
export const storedFloats = { float32: 'F32', float16: 'F16', bfloat16: 'BF16' } as const;
export type FloatType = keyof typeof storedFloats;
