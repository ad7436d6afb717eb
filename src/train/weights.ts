// The weights of a model in training. A frozen one is a constant as it is stored, in its file where the model
// is large; a trained one is state of the engine, in float32. Nothing is in memory twice.

import type { Checkpoint } from '../checkpoint/checkpoint.ts';
import type { Constant, Engine, State } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { constantsOf, type Graph } from '../models/programs.ts';
import { initialize, isPacked, type Parameter, type Storage, type StorageOf } from '../nn/parameters.ts';
import { constantSource, float32Of, readStored } from '../pretrained/stored.ts';
import { createRandom } from '../random.ts';
import type { TensorSource } from '../weights/safetensors.ts';

/** What a checkpoint holds of a parameter. */
export type NamedParameter = Pick<Parameter, 'name' | 'dims'>;

interface Entry extends NamedParameter {
  storage: Storage;
  /** By the names of the inputs that hold it; of a trained one, nothing. */
  constants: Map<string, Constant>;
  state?: State;
}

/** Weights of more bytes than this stay in their files. */
const MEMORY_LIMIT = 2 ** 28;

export class ModelWeights {
  private readonly entries = new Map<string, Entry>();
  private readonly engine: Engine;

  constructor(engine: Engine) {
    this.engine = engine;
  }

  /** Adds a parameter with values of its own, float32 row-major. */
  add({ name, dims }: NamedParameter, data: Float32Array): void {
    this.entries.set(name, { name, dims, storage: 'float32', constants: new Map([[name, { dtype: 'float32', dims, data }]]) });
  }

  /**
   * Adds parameters as `checkpoint` stores them, optional ones where it has them. `rename` gives the name in
   * the checkpoint, where it differs. UserError, naming folder and tensor, for one that is missing,
   * misshapen, or holds NaN or infinity.
   */
  async addStored(checkpoint: Checkpoint, parameters: readonly Parameter[], rename = (name: string) => name): Promise<void> {
    const inFiles = checkpoint.files.reduce((sum, { bytes }) => sum + bytes, 0) > MEMORY_LIMIT;
    for (const { name, dims, storage, constants } of await readStored(checkpoint, parameters, { inFiles, rename }))
      this.entries.set(name, { name, dims, storage, constants });
  }

  /** Names and dims of all, in the order in which they were added. */
  get parameters(): readonly NamedParameter[] {
    return [...this.entries.values()];
  }

  has(name: string): boolean {
    return this.entries.has(name);
  }

  private entry(name: string): Entry {
    const entry = this.entries.get(name);
    if (!entry) throw new Error(`no value for parameter ${name}`);
    return entry;
  }

  /** How a graph reads the weights when those that `isTrained` names are trained. */
  storageOf(isTrained: (name: string) => boolean = () => false): StorageOf {
    return (name) => (isTrained(name) || !this.entries.has(name) ? 'float32' : this.entry(name).storage);
  }

  /** A weight as state, to be trained: in float32 from now on. UserError for one that is packed. */
  async trained(name: string): Promise<State> {
    const entry = this.entry(name);
    if (!entry.state) {
      if (isPacked(entry.storage))
        throw new UserError(`${name} is quantized: it can be frozen, but not trained; train the weights that it was made from`);
      entry.state = this.engine.state(await float32Of(entry.constants.get(name)!));
      entry.constants.clear();
      entry.storage = 'float32';
    }
    return entry.state;
  }

  /**
   * The constants of a graph, frozen weights as they are stored; those that `isTrained` names are left out.
   */
  async constants(graph: Graph, isTrained: (name: string) => boolean = () => false): Promise<Map<string, Constant>> {
    return constantsOf(
      graph.parameters.filter(({ name }) => !isTrained(name)),
      await this.all(),
    );
  }

  /**
   * Every weight as a constant, trained ones as they are now: for a model that is scored in the middle of a
   * run.
   */
  async all(): Promise<Map<string, Constant>> {
    const all = new Map<string, Constant>();
    for (const { name, state, constants } of this.entries.values())
      if (state) all.set(name, await state.read());
      else for (const [input, constant] of constants) all.set(input, constant);
    return all;
  }

  /** The tensors of a checkpoint: trained ones in float32, frozen ones as they are stored. */
  async sources(): Promise<Map<string, TensorSource>> {
    return new Map([...(await this.all())].map(([name, constant]) => [name, constantSource(constant)]));
  }

  /** The bytes of the weights that `isWanted` names, in pieces. */
  async *bytes(isWanted: (name: string) => boolean): AsyncGenerator<Uint8Array> {
    for (const [name, { data }] of await this.sources()) if (isWanted(name)) yield* data instanceof Uint8Array ? [data] : data();
  }

  /** Replaces a weight by float32 values, as a checkpoint of the run has them. */
  async restore(name: string, data: Float32Array): Promise<void> {
    const { state, dims } = this.entry(name);
    if (state) await state.write({ dtype: 'float32', dims, data });
    else this.add({ name, dims }, data);
  }
}

/** Fresh weights for `parameters`: each a function of `seed` and its name. */
export function freshWeights(engine: Engine, parameters: readonly Parameter[], seed: number): ModelWeights {
  const weights = new ModelWeights(engine);
  for (const parameter of parameters) weights.add(parameter, initialize(parameter, createRandom(seed, parameter.name)));
  return weights;
}
