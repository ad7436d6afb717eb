// The weights of a model in training. A frozen one is a constant as it is stored, in its file where the model
// is large; a trained one is state of the engine, in float32. Nothing is in memory twice.

import { type Checkpoint, floatSource } from '../checkpoint/checkpoint.ts';
import type { Constant, Engine, State } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { constantsOf, type Graph } from '../models/programs.ts';
import { downName, isOfAdapter, upName, weightName } from '../nn/lora.ts';
import { type Adapter, initialize, inputNames, isPacked, type Parameter, type Storage, type StorageOf } from '../nn/parameters.ts';
import { mergedValues } from '../pretrained/merge.ts';
import { MEMORY_LIMIT } from '../pretrained/scratch.ts';
import { constantSource, float32Of, readStored, type StoredName } from '../pretrained/stored.ts';
import { createRandom } from '../random.ts';
import { storedFloats } from '../weights/dtype.ts';
import type { TensorSource } from '../weights/safetensors.ts';

/** What a checkpoint holds of a parameter. */
export type NamedParameter = Pick<Parameter, 'name' | 'dims'>;

interface Entry extends NamedParameter {
  storage: Storage;
  /** By the names of the inputs that hold it; of a trained one, nothing. */
  constants: Map<string, Constant>;
  state?: State;
}

/** A layer's adapter: values of A [rank, in] and B [out, rank]. */
export interface AddedAdapter extends Pick<Adapter, 'rank' | 'scale'> {
  down: Float32Array;
  up: Float32Array;
}

export class ModelWeights {
  private readonly entries = new Map<string, Entry>();
  private readonly adapters = new Map<string, AddedAdapter>();
  private readonly engine: Engine;
  private readonly unread: boolean;

  /** `unread` weights are known by name, type and shape, to be planned with. */
  constructor(engine: Engine, { unread = false } = {}) {
    this.engine = engine;
    this.unread = unread;
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
  async addStored(checkpoint: Checkpoint, parameters: readonly StoredName[], rename = (name: string) => name): Promise<void> {
    const inFiles = checkpoint.files.reduce((sum, { bytes }) => sum + bytes, 0) > MEMORY_LIMIT;
    for (const { name, dims, storage, constants } of await readStored(checkpoint, parameters, { inFiles, rename, unread: this.unread }))
      this.entries.set(name, { name, dims, storage, constants });
  }

  /** Adds the adapter of a linear layer, whose weight stays as it is until `sources` merges the two. */
  addAdapter(module: string, adapter: AddedAdapter): void {
    const [outFeatures, inFeatures] = this.entry(weightName(module)).dims;
    this.add({ name: downName(module), dims: [adapter.rank, inFeatures] }, adapter.down);
    this.add({ name: upName(module), dims: [outFeatures, adapter.rank] }, adapter.up);
    this.adapters.set(module, adapter);
  }

  /**
   * Takes the adapters away; the weights that they belong to are from now on what `checkpoint` stores, into
   * which they were merged.
   */
  async takeMerged(checkpoint: Checkpoint): Promise<void> {
    const modules = [...this.adapters.keys()];
    for (const module of modules) for (const name of [downName(module), upName(module)]) this.entries.delete(name);
    this.adapters.clear();
    const merged = modules.map(weightName).map((name) => ({ name, dims: this.entry(name).dims }));
    await this.addStored(checkpoint, merged);
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

  /** UserError if one of those that `isTrained` names is packed. */
  checkTrainable(isTrained: (name: string) => boolean): void {
    for (const { name, storage } of this.entries.values())
      if (isTrained(name) && isPacked(storage))
        throw new UserError(
          `${name} is quantized: it can be frozen, but not trained; train the weights that it was made from, or adapters (lora)`,
        );
  }

  /** A weight as state, to be trained: in float32 from now on. */
  async trained(name: string): Promise<State> {
    const entry = this.entry(name);
    if (!entry.state) {
      this.checkTrainable((other) => other === name);
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

  /**
   * The tensors of a checkpoint: trained ones in float32, frozen ones as they are stored, those with an
   * adapter merged with it. A packed weight becomes bfloat16 by that.
   */
  async sources(): Promise<Map<string, TensorSource>> {
    const sources = new Map<string, TensorSource>();
    const all = await this.all();
    const mergedInto = new Map([...this.adapters].map(([module, adapter]) => [weightName(module), { module, adapter }]));
    for (const { name, storage } of this.entries.values()) {
      const merged = mergedInto.get(name);
      if (merged) sources.set(name, this.mergedSource(merged.module, merged.adapter, all));
      else if (!isOfAdapter(name)) for (const input of inputNames({ name, storage })) sources.set(input, constantSource(all.get(input)!));
    }
    return sources;
  }

  /** A and B of every adapter, float32. */
  async adapterSources(): Promise<Map<string, TensorSource>> {
    const sources = new Map<string, TensorSource>();
    for (const [name, constant] of await this.all()) if (isOfAdapter(name)) sources.set(name, constantSource(constant));
    return sources;
  }

  /** Computed when it is read: one such weight at a time is in memory. */
  private mergedSource(module: string, { rank, scale }: AddedAdapter, all: ReadonlyMap<string, Constant>): TensorSource {
    const { name, dims, storage } = this.entry(weightName(module));
    const { engine } = this;
    const merged = async function* () {
      yield mergedValues(engine, { module, dims, storage, rank, scale }, all);
    };
    return floatSource([...dims], merged, storedFloats[isPacked(storage) ? 'bfloat16' : storage], name);
  }

  /** What `body` gives while the weights that `states` names are those, such as their averages. */
  async using<T>(states: ReadonlyMap<string, State>, body: () => Promise<T>): Promise<T> {
    const own = new Map([...states.keys()].map((name) => [name, this.entry(name).state]));
    const put = (all: ReadonlyMap<string, State | undefined>) => {
      for (const [name, state] of all) this.entry(name).state = state;
    };
    put(states);
    try {
      return await body();
    } finally {
      put(own);
    }
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
