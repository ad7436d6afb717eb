// The table of ops by engine in docs/webgpu.md, made from what each op is lowered to. After a new op,
// `npx vitest run tests/op-support.test.ts -u` rewrites it.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { lowerToModel } from '../src/engine/onnx/lower.ts';
import type { Target } from '../src/engine/onnx/rule.ts';
import type { OnnxNode } from '../src/engine/onnx/writer.ts';
import { compositeRules } from '../src/graph/composites.ts';
import { input, type Tensor } from '../src/graph/tensor.ts';
import { CASES, type Case } from './op-cases.ts';
import { root } from './structure.ts';

/** Nodes that say how an op's own are shaped or typed. */
const AROUND = ['Reshape', 'Concat', 'Shape', 'Slice', 'Expand', 'Cast', 'Unsqueeze', 'Squeeze', 'Identity'];

const resultOf = ({ operands, build }: Case): Tensor =>
  build(
    operands.map(({ axes, value }, i) =>
      input(
        `x${i}`,
        value.dtype,
        axes.map(({ size, name }) => name ?? size),
      ),
    ),
  );

/** ONNX ops that an op becomes, over a few of its cases; or that it is refused. */
function opsOf(cases: fc.Arbitrary<Case>, target: Target): string {
  const types = new Set<string>();
  for (const one of fc.sample(cases, { numRuns: 12, seed: 1 })) {
    const y = resultOf(one);
    if (y.dtype === 'bfloat16' || one.label.includes('bfloat16')) continue;
    try {
      const { nodes } = lowerToModel({ y }, { target }).model;
      for (const { opType } of nodes as OnnxNode[]) types.add(opType);
    } catch (error) {
      return `no: ${(error as Error).message.split(': ').at(-1)}`;
    }
  }
  const own = [...types].filter((type) => !AROUND.includes(type)).sort();
  if (own.length > 0) return own.join(', ');
  return (
    [...types]
      .filter((type) => type !== 'Identity')
      .sort()
      .join(', ') || 'nothing to do'
  );
}

function rowOf(op: string, cases: fc.Arbitrary<Case>): string {
  const [cpu, webgpu] = (['cpu', 'webgpu'] as const).map((target) => opsOf(cases, target));
  const isExpanded = op in compositeRules && cpu === webgpu && cpu.split(', ').length > 3;
  return isExpanded
    ? `| \`${op}\` | its definition | its definition |`
    : `| \`${op}\` | ${cpu} | ${webgpu === cpu ? 'the same' : webgpu} |`;
}

test('docs/webgpu.md lists what every op becomes', async () => {
  const path = join(root, 'docs', 'webgpu.md');
  const [begin, end] = ['<!-- ops: begin -->', '<!-- ops: end -->'];
  const [before, rest] = readFileSync(path, 'utf8').split(begin);
  const ops = Object.entries(CASES).filter(([op]) => op !== 'input' && op !== 'constant');
  const table = ['| Op | ONNX Runtime, CPU | ONNX Runtime, WebGPU |', '|---|---|---|', ...ops.map(([op, cases]) => rowOf(op, cases))].join(
    '\n',
  );
  await expect(`${before}${begin}\n\n${table}\n\n${end}${rest.split(end)[1]}`).toMatchFileSnapshot(path);
});
