// transformers.js as a peer: its AutoProcessor, its LlavaForConditionalGeneration, its generate().

import { basename, dirname } from 'node:path';
import { importPeer, type PeerLoad, type PeerQuestion, peerVersion, serve, type Traced } from './serve.ts';

interface Tensor {
  dims: number[];
  /** `cpu`, or where else it is. */
  location: string;
  data: Float32Array | BigInt64Array;
  slice(...ranges: unknown[]): Tensor;
}

type Inputs = Record<'input_ids' | 'attention_mask' | 'pixel_values', Tensor>;

interface Processor {
  (image: unknown, text: string): Promise<Inputs>;
  apply_chat_template(messages: object[], options: object): string;
  batch_decode(ids: Tensor, options: object): string[];
}

interface Model {
  (inputs: Inputs): Promise<Record<string, Tensor>>;
  generate(options: object): Promise<Tensor>;
  encode_image(inputs: { pixel_values: Tensor }): Promise<Tensor>;
  dispose(): Promise<unknown>;
}

/** The part of the package that is used. */
export interface TransformersJs {
  env: { allowRemoteModels: boolean; localModelPath: string };
  RawImage: { read(path: string): Promise<unknown> };
  AutoProcessor: { from_pretrained(name: string): Promise<Processor> };
  LlavaForConditionalGeneration: { from_pretrained(name: string, options: object): Promise<Model> };
}

const PACKAGE = '@huggingface/transformers';
let library: TransformersJs;
let processor: Processor;
let model: Model;

async function inputsOf({ image, text }: PeerQuestion): Promise<Inputs> {
  const content = [{ type: 'image' }, { type: 'text', text }];
  const prompt = processor.apply_chat_template([{ role: 'user', content }], { add_generation_prompt: true });
  return processor(await library.RawImage.read(image), prompt);
}

serve({
  async load({ peers, folder, dtype, device = 'cpu' }: PeerLoad) {
    library = await importPeer<TransformersJs>(peers, PACKAGE);
    library.env.allowRemoteModels = false;
    library.env.localModelPath = `${dirname(folder)}/`;
    processor = await library.AutoProcessor.from_pretrained(basename(folder));
    model = await library.LlavaForConditionalGeneration.from_pretrained(basename(folder), { device, dtype });
    return `${PACKAGE} ${peerVersion(peers, PACKAGE)}${device === 'cpu' ? '' : ` on ${device}`}`;
  },
  async answer(question, maxNewTokens) {
    const inputs = await inputsOf(question);
    const ids = await model.generate({ ...inputs, max_new_tokens: maxNewTokens, do_sample: false });
    return processor.batch_decode(ids.slice(null, [inputs.input_ids.dims[1], null]), { skip_special_tokens: true })[0];
  },
  async trace(question) {
    const inputs = await inputsOf(question);
    const features = await model.encode_image(inputs);
    const { logits, ...outputs } = await model(inputs);
    const last = logits.slice(null, [logits.dims[1] - 1, logits.dims[1]], null);
    const traced = (name: string, { data }: Tensor): Traced => ({ name, data: Float32Array.from(data as ArrayLike<number>, Number) });
    const layers = Object.keys(outputs).filter((name) => name.startsWith('present.')).length / 2;
    return [
      traced('pixel_values', inputs.pixel_values),
      traced('input_ids', inputs.input_ids),
      traced('image_features', features),
      ...Array.from({ length: layers }, (_, i) => ['key', 'value'].map((kind) => `present.${i}.${kind}`))
        .flat()
        // onnxruntime-node cannot give back what is on a device
        .filter((name) => outputs[name].location === 'cpu')
        .map((name) => traced(name, outputs[name])),
      traced('logits', last),
    ];
  },
});
