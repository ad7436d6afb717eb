// The form in which a LLaVA leaves this project: a folder that transformers 5 runs as it is
// (models/llava/modeling_llava.py). It looks `<image>` up in the embedding before it puts the image rows
// there, and does not scale them: so the table gets a row for `<image>`, and the scale goes into the
// connector.

import { connectorDepth } from '../models/connector.ts';
import { imageTokenCount, llavaConfigSchema } from '../models/llava.ts';

/** The transformers whose files are followed. From 5 on, image rows are not scaled (models/hub-config.ts). */
export const TRANSFORMERS_VERSION = '5.18.0';

/** A tensor of floats, row-major; `data` begins anew at each call. */
export interface FloatTensor {
  shape: number[];
  data: () => Iterable<Float32Array> | AsyncIterable<Float32Array>;
}

export interface HubForm {
  /** config.json, but for `dtype`. */
  config: Record<string, unknown>;
  /** Has rows behind those of the model, which are the first ones. */
  widened: Map<string, FloatTensor>;
  /** The scale of image rows is in these: their values in float32 are not those of the model any more. */
  folded: Map<string, FloatTensor>;
  /** The weights that the scale goes into, and what they are multiplied by. */
  foldedBy: { names: string[]; factor: number };
}

/** The tensor that gets further rows. */
export const EMBEDDING = 'language_model.model.embed_tokens.weight';

/** Rows of a widened table are a multiple of this, as in Intel's conversion of LLaVA-Gemma. */
const ROW_MULTIPLE = 64;

/** Fields that belong to a folder, not to a part of its model. */
const ofFolder = ['architectures', 'transformers_version', '_name_or_path', 'dtype', 'torch_dtype'];

type Json = Record<string, unknown>;

const part = (config: unknown): Json => Object.fromEntries(Object.entries(config as Json).filter(([name]) => !ofFolder.includes(name)));

/**
 * What a folder of this LLaVA says to transformers, and the tensors that replace its own. `tensors` are those
 * that are stored as floats: what is packed stays as it is, since only this project reads it. A config of
 * another kind comes back unchanged.
 */
export function hubForm(config: unknown, tensors: ReadonlyMap<string, FloatTensor>): HubForm {
  const parsed = llavaConfigSchema.safeParse(config);
  const form: HubForm = { config: config as Json, widened: new Map(), folded: new Map(), foldedBy: { names: [], factor: 1 } };
  if (!parsed.success) return form;
  const { text_config: text, image_token_index: imageToken, mm_projector_type: type, scale_image_features: scaled } = parsed.data;

  let vocabulary = text.vocab_size;
  const table = tensors.get(EMBEDDING);
  if (table && imageToken >= vocabulary) {
    vocabulary = Math.ceil((imageToken + 1) / ROW_MULTIPLE) * ROW_MULTIPLE;
    form.widened.set(EMBEDDING, withMeanRows(table, vocabulary));
  }

  const last = `multi_modal_projector.linear_${connectorDepth(type)}`;
  const layer = [`${last}.weight`, `${last}.bias`];
  const folds = scaled && layer.every((name) => tensors.has(name));
  if (folds) {
    form.foldedBy = { names: layer, factor: Math.sqrt(text.hidden_size) };
    for (const name of layer) form.folded.set(name, multiplied(tensors.get(name)!, form.foldedBy.factor));
  }

  const given = config as Json;
  form.config = {
    ...given,
    model_type: 'llava',
    architectures: ['LlavaForConditionalGeneration'],
    vision_config: part(given.vision_config),
    text_config: { ...part(given.text_config), vocab_size: vocabulary },
    image_seq_length: imageTokenCount(parsed.data),
    scale_image_features: scaled && !folds,
    tie_word_embeddings: true,
    transformers_version: TRANSFORMERS_VERSION,
  };
  return form;
}

/**
 * A matrix with more rows, each the mean of those that it has. The logit of such a row is the mean of the
 * others', so that it is never the largest: greedy answers stay what they were.
 */
function withMeanRows({ shape: [rows, width], data }: FloatTensor, wanted: number): FloatTensor {
  async function* pieces() {
    const sums = new Float64Array(width);
    let column = 0;
    for await (const piece of data()) {
      for (let i = 0; i < piece.length; i++) {
        sums[column] += piece[i];
        column = column + 1 === width ? 0 : column + 1;
      }
      yield piece;
    }
    const mean = Float32Array.from(sums, (sum) => sum / rows);
    for (let row = rows; row < wanted; row++) yield mean;
  }
  return { shape: [wanted, width], data: pieces };
}

export function multiplied({ shape, data }: FloatTensor, factor: number): FloatTensor {
  return {
    shape,
    async *data() {
      for await (const piece of data()) yield piece.map((value) => value * factor);
    },
  };
}
