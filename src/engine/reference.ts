// A second engine in plain float64 loops (reference-ops.ts): the oracle that every other engine is tested against.

import { inputName, type TypedData, topologicalOrder } from '../graph/tensor.ts';
import type { Constant, Engine, Value } from './engine.ts';
import { evaluateReference, type ReferenceValue } from './reference-ops.ts';

export function createReferenceEngine(): Engine {
  return {
    name: 'reference',
    async compile(outputs, { constants } = {}) {
      const inputNames = topologicalOrder(Object.values(outputs))
        .filter((t) => t.op === 'input')
        .map(inputName);
      const widen = (value: Constant): ReferenceValue => {
        if (!('data' in value)) throw new Error('the reference engine takes values in memory only');
        return { dims: [...value.dims], data: Float64Array.from(value.data as Float32Array, Number) };
      };
      return {
        inputNames: inputNames.filter((name) => !constants?.has(name)),
        outputNames: Object.keys(outputs),
        async run(values, wanted) {
          const all: Record<string, ReferenceValue> = {};
          for (const name of inputNames) all[name] = widen(values[name] ?? constants!.get(name)!);
          const results = evaluateReference(outputs, all);
          return Object.fromEntries(
            Object.entries(results)
              .filter(([name]) => !wanted || wanted.includes(name))
              .map(([name, { dims, data }]) => [name, narrow(outputs[name].dtype, dims, data)]),
          );
        },
        dispose: async () => {},
      };
    },
  };
}

function narrow(dtype: Value['dtype'], dims: number[], data: Float64Array): Value {
  const typed: TypedData =
    dtype === 'float32' ? Float32Array.from(data) : dtype === 'int32' ? Int32Array.from(data) : Uint8Array.from(data);
  return { dtype, dims, data: typed };
}
