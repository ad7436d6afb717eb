// Small faults for a TypeScript source, one at a time: swapped operators, conditions that are always or never true, bounds off by one,
// statements and values left out. The set is that of Stryker (stryker-mutator.io/docs/mutation-testing-elements/supported-mutators) plus
// off-by-one, without texts of errors and descriptions. A mutant is { start, end, text, line }: `text` instead of source[start, end).
import { parseAst } from 'vitest/node';

const BINARY = {
  '+': ['-'],
  '-': ['+'],
  '*': ['/'],
  '/': ['*'],
  '%': ['*'],
  '**': ['*'],
  '<': ['<='],
  '<=': ['<'],
  '>': ['>='],
  '>=': ['>'],
  '===': ['!=='],
  '!==': ['==='],
  '&': ['|'],
  '|': ['&'],
  '<<': ['>>'],
  '>>>': ['<<'],
  '&&': ['||'],
  '||': ['&&'],
  '??': ['&&'],
};
const ASSIGNMENT = { '+=': '-=', '-=': '+=', '*=': '/=', '/=': '*=', '??=': '=', '>>>=': '<<=' };
const METHODS = {
  some: 'every',
  every: 'some',
  startsWith: 'endsWith',
  endsWith: 'startsWith',
  trim: 'trimEnd',
  toLowerCase: 'toUpperCase',
  min: 'max',
  max: 'min',
  floor: 'ceil',
  ceil: 'floor',
  round: 'floor',
  indexOf: 'lastIndexOf',
  lastIndexOf: 'indexOf',
};
/** Calls that can be left out: what they are called on takes their place. */
const OPTIONAL_CALLS = ['sort', 'reverse', 'filter', 'slice', 'trim', 'trimEnd', 'trimStart', 'flat', 'toLowerCase', 'normalize'];
/** Calls whose arguments are bounds. */
const BOUNDED = ['slice', 'subarray', 'fill', 'copyWithin'];
const REGEX = [
  [/^\^/, ''],
  [/(?<!\\)\$$/, ''],
  [/\+(?!\?)/, ''],
  [/\\d/, '\\D'],
  [/\\s/, '\\S'],
  [/\[\^/, '['],
];

/** Whether a node holds words for people, or is none of the program's running. */
const isText = (node, parent) =>
  node.type.startsWith('Import') ||
  (node.type === 'NewExpression' && /Error$/.test(node.callee.name ?? '')) ||
  (node.type === 'CallExpression' && node.callee.property?.name === 'describe') ||
  (node.type === 'CallExpression' && node.callee.name === 'fail') ||
  (parent?.type === 'Property' && parent.value === node && ['message', 'error'].includes(parent.key.name) && node.type !== 'Identifier');

/** Every mutant of a source, in its order. */
export function mutantsOf(source) {
  const found = [];
  const add = (node, text) => {
    if (source.slice(node.start, node.end) === text) return;
    found.push({ start: node.start, end: node.end, text, line: source.slice(0, node.start).split('\n').length });
  };
  const code = (node) => source.slice(node.start, node.end);
  /** The operator between two nodes. */
  const operator = (left, right, symbol) => {
    const start = source.indexOf(symbol, left.end);
    return start < right.start ? { start, end: start + symbol.length } : undefined;
  };

  const kinds = {
    BinaryExpression: (node) => {
      const isPrice = (side) => side.type === 'Literal' && typeof side.value === 'string';
      if (node.operator === '+' && (isPrice(node.left) || isPrice(node.right))) return;
      for (const other of BINARY[node.operator] ?? []) add(operator(node.left, node.right, node.operator), other);
    },
    LogicalExpression: (node) => kinds.BinaryExpression(node),
    UnaryExpression: (node) => {
      if (['!', '-', '~'].includes(node.operator)) add(node, `(${code(node.argument)})`);
    },
    UpdateExpression: (node) =>
      add(
        node,
        code(node).replace(/\+\+|--/, (symbol) => (symbol === '++' ? '--' : '++')),
      ),
    AssignmentExpression: (node) => {
      if (ASSIGNMENT[node.operator]) add(operator(node.left, node.right, node.operator), ASSIGNMENT[node.operator]);
      if (node.left.property?.name === 'length') add(node.right, `${code(node.right)} + 1`);
    },
    Literal: (node, parent) => {
      if (node.regex) {
        for (const [pattern, text] of REGEX) {
          const changed = node.regex.pattern.replace(pattern, text);
          if (changed !== node.regex.pattern && changed !== '') add(node, `/${changed}/${node.regex.flags}`);
        }
      } else if (typeof node.value === 'boolean') add(node, String(!node.value));
      else if (typeof node.value === 'number') add(node, /^0x/.test(node.raw) ? `(${node.raw} + 1)` : String(node.value + 1));
      else if (typeof node.value === 'string') {
        const isKey = parent.type.startsWith('Property') && parent.key === node && !parent.computed;
        if (!isKey && parent.type !== 'ExpressionStatement') add(node, node.value === '' ? "'mutant'" : "''");
      }
    },
    TemplateLiteral: (node) => add(node, '``'),
    ArrayExpression: (node) => {
      if (node.elements.length > 0) add(node, '[]');
    },
    ArrowFunctionExpression: (node) => {
      if (node.body.type !== 'BlockStatement') add(node.body, 'undefined');
    },
    IfStatement: (node) => {
      add(node.test, 'true');
      add(node.test, 'false');
    },
    ConditionalExpression: (node) => kinds.IfStatement(node),
    WhileStatement: (node) => add(node.test, 'false'),
    ForStatement: (node) => {
      if (node.test) add(node.test, 'false');
    },
    ForOfStatement: (node) => add(node.body, '{}'),
    ExpressionStatement: (node) => {
      if (!node.directive) add(node, ';');
    },
    ThrowStatement: (node) => add(node, ';'),
    ReturnStatement: (node) => {
      if (!node.argument) add(node, ';');
    },
    ContinueStatement: (node) => add(node, ';'),
    BreakStatement: (node) => add(node, ';'),
    MemberExpression: (node) => {
      if (node.optional) add(operator(node.object, node.property, '?.'), node.computed ? '' : '.');
    },
    CallExpression: (node) => {
      const { callee, arguments: given } = node;
      if (callee.type !== 'MemberExpression' || callee.computed) return;
      const { name } = callee.property;
      if (METHODS[name]) add(callee.property, METHODS[name]);
      if (OPTIONAL_CALLS.includes(name)) add(node, code(callee.object));
      if (BOUNDED.includes(name)) for (const argument of given) if (argument.type !== 'Literal') add(argument, `${code(argument)} + 1`);
    },
  };

  const visit = (node, parent) => {
    if (Array.isArray(node)) for (const child of node) visit(child, parent);
    if (typeof node?.type !== 'string') return;
    if (node.type.startsWith('TS')) return visit(node.expression, parent);
    if (isText(node, parent)) return;
    kinds[node.type]?.(node, parent);
    for (const [key, child] of Object.entries(node)) {
      if (child === null || typeof child !== 'object' || key === 'typeAnnotation' || key === 'returnType' || key === 'regex') continue;
      visit(child, node);
    }
  };
  visit(parseAst(source, { lang: 'ts' }), undefined);
  return found.sort((a, b) => a.start - b.start || a.end - b.end);
}
