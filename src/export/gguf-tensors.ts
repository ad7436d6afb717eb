// Tensors on their way into a GGUF file: taken from a source, changed where llama.cpp computes otherwise,
// encoded piece by piece.

import { UserError } from '../errors.ts';
import type { FloatTensor } from '../pretrained/hub-form.ts';
import { elementCount } from '../weights/safetensors.ts';
import { encodeGguf, type GgufTensor, type GgufTensorType } from './gguf.ts';
import { type ExportSource, rowsOf } from './source.ts';

/** What is done to a row of a tensor, the number of which is given. */
export type RowChange = (row: Float32Array, index: number) => Float32Array;

export interface PlainOptions {
  change?: RowChange;
  shape?: readonly number[];
  /** Whether the first row goes to the end. */
  turned?: boolean;
}

function firstRowLast(tensor: FloatTensor): FloatTensor {
  const columns = elementCount(tensor.shape.slice(1));
  return {
    ...tensor,
    async *data() {
      let first: Float32Array | undefined;
      for await (const rows of rowsOf(tensor, columns)) {
        yield first ? rows : rows.subarray(columns);
        first ??= rows.slice(0, columns);
      }
      yield first!;
    },
  };
}

/** Collects the tensors of a file. Vectors, and what is added instead of multiplied, stay in float32. */
export class GgufTensors {
  readonly tensors = new Map<string, GgufTensor>();
  /** Of matrices. */
  readonly type: GgufTensorType;
  private readonly source: ExportSource;
  private readonly factors: { vector: FloatTensor; values: Float32Array }[] = [];

  constructor(source: ExportSource, type: GgufTensorType) {
    this.source = source;
    this.type = type;
  }

  /** The weight of a product; a row that is no whole number of blocks is stored in float16. */
  matrix(
    name: string,
    from: string,
    dims: readonly number[],
    { change, type = this.type }: { change?: RowChange; type?: GgufTensorType } = {},
  ): void {
    const isBlocked = type.startsWith('Q');
    this.add(name, this.source.tensor(from, dims), isBlocked && dims.at(-1)! % 32 !== 0 ? 'F16' : type, change);
  }

  /** In float32, with other dims of as many numbers. */
  plain(name: string, from: string, dims: readonly number[], { change, shape = dims, turned = false }: PlainOptions = {}): void {
    const tensor = { ...this.source.tensor(from, dims), shape: [...shape] };
    this.add(name, turned ? firstRowLast(tensor) : tensor, 'F32', change);
  }

  has(name: string): boolean {
    return this.source.has(name);
  }

  /** Multiplies each row by the number that the vector `from` [size] has for it. */
  rowScale(from: string, size: number): RowChange {
    const vector = this.source.tensor(from, [size]);
    this.factors.push({ vector, values: new Float32Array(size) });
    const { values } = this.factors.at(-1)!;
    return (row, index) => row.map((value) => value * values[index]);
  }

  /** Reads the factors of `rowScale`. Call it before the tensors are written. */
  async readFactors(): Promise<void> {
    for (const { vector, values } of this.factors) {
      let at = 0;
      for await (const piece of vector.data()) {
        values.set(piece, at);
        at += piece.length;
      }
    }
  }

  private add(name: string, tensor: FloatTensor, type: GgufTensorType, change?: RowChange): void {
    const { shape } = tensor;
    const columns = shape.length === 1 ? 1 : elementCount(shape.slice(1));
    const { dir } = this.source;
    this.tensors.set(name, {
      shape,
      type,
      async *data() {
        let row = 0;
        for await (const rows of rowsOf(tensor, columns)) {
          const values = change ? changedRows(rows, columns, row, change) : rows;
          row += rows.length / columns;
          const bytes = encodeGguf(type, values);
          if (type === 'F16') refuseLost(values, bytes, `${dir}: ${name}`);
          yield bytes;
        }
      },
    });
  }
}

function changedRows(rows: Float32Array, columns: number, first: number, change: RowChange): Float32Array {
  const changed = new Float32Array(rows.length);
  for (let i = 0; i * columns < rows.length; i++)
    changed.set(change(rows.subarray(i * columns, (i + 1) * columns), first + i), i * columns);
  return changed;
}

/** UserError for a number that became infinite. */
function refuseLost(values: Float32Array, bytes: Uint8Array, where: string): void {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, values.length);
  const lost = halves.findIndex((half, i) => (half & 0x7c00) === 0x7c00 && Number.isFinite(values[i]));
  if (lost >= 0) throw new UserError(`${where} holds ${values[lost]}, but float16 ends at 65504: take BF16 or F32`);
}
