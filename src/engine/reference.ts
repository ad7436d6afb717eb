// A second engine in plain float64 loops (reference-ops.ts): the oracle that every other engine is tested
// against.

import { inputName, numbersOf, type Tensor, topologicalOrder, typedData } from '../graph/tensor.ts';
import { type Constant, checkInputs, type Engine, type Value } from './engine.ts';
import { applyWrite, hostMemory, writtenStates } from './host-memory.ts';
import { HostSlots } from './host-slots.ts';
import { HostSequence, HostState } from './host-state.ts';
import { evaluateReference, type ReferenceValue } from './reference-ops.ts';

/**
 * An engine that computes in float64 and rounds what it returns to the dtype of the output. Takes constants
 * in memory only.
 */
export function createReferenceEngine(): Engine {
  return {
    name: 'reference',
    async compile(outputs, { constants, writes = {} } = {}) {
      const all: Record<string, Tensor> = { ...outputs };
      for (const [name, { tensor }] of Object.entries(writes)) all[writeName(name)] = tensor;
      const inputs = new Map<string, Tensor>();
      const fixed = new Map<string, Tensor>();
      for (const tensor of topologicalOrder(Object.values(all)))
        if (tensor.op === 'input') (constants?.has(inputName(tensor)) ? fixed : inputs).set(inputName(tensor), tensor);
      checkInputs(fixed, (name) => constants!.get(name));
      return {
        inputNames: [...inputs.keys()],
        outputNames: Object.keys(outputs),
        async run(given, { state = {}, outputs: wanted = Object.keys(outputs) } = {}) {
          const targets = writtenStates(writes, state);
          const read = (name: string): Value | undefined => given[name] ?? (state[name] && hostMemory(name, state[name]).value());
          const values = new Map([...inputs.keys()].map((name) => [name, read(name)]));
          checkInputs(inputs, (name) => values.get(name));
          const feeds: Record<string, ReferenceValue> = {};
          for (const name of fixed.keys()) feeds[name] = widen(constants!.get(name)!);
          for (const name of inputs.keys()) feeds[name] = widen(values.get(name)!);
          const results = evaluateReference(all, feeds);
          const result = (name: string): Value => {
            const { dtype } = all[name];
            const { dims, data } = results[name];
            return { dtype, dims, data: typedData(data, dtype) };
          };
          for (const [name, target] of targets) applyWrite(target, writes[name].mode, result(writeName(name)));
          return Object.fromEntries(wanted.map((name) => [name, result(name)]));
        },
        dispose: async () => {},
      };
    },
    state: ({ dtype, dims, data }) => new HostState(dtype, dims, data),
    zeros: (dtype, dims) => new HostState(dtype, dims),
    sequence: (dtype, dims, axis) => new HostSequence(dtype, dims, axis),
    slots: (dtype, dims, axis) => new HostSlots(dtype, dims, axis),
  };
}

const writeName = (state: string) => `write ${state}`;

function widen(value: Constant): ReferenceValue {
  if (!('data' in value)) throw new Error('the reference engine takes values in memory only');
  return { dims: [...value.dims], data: numbersOf(value.data, value.dtype) };
}
