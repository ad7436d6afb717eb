// A second engine in plain float64 loops (reference-ops.ts): the oracle that every other engine is tested
// against.

import { numbersOf, topologicalOrder, typedData } from '../graph/tensor.ts';
import type { Constant, Engine } from './engine.ts';
import { evaluateReference, type ReferenceValue } from './reference-ops.ts';

export function createReferenceEngine(): Engine {
  return {
    name: 'reference',
    async compile(outputs, { constants } = {}) {
      const inputNames = topologicalOrder(Object.values(outputs))
        .filter((t) => t.op === 'input')
        .map((t) => t.attributes.name);
      const widen = (value: Constant): ReferenceValue => {
        if (!('data' in value)) throw new Error('the reference engine takes values in memory only');
        return { dims: [...value.dims], data: numbersOf(value.data, value.dtype) };
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
              .map(([name, { dims, data }]) => [name, { dtype: outputs[name].dtype, dims, data: typedData(data, outputs[name].dtype) }]),
          );
        },
        dispose: async () => {},
      };
    },
  };
}
