// One set of names for the tensors of a checkpoint, whichever software wrote it. Ours are those of older
// Hugging Face hub files. Follows LLaVA's module tree (llava_arch.py: `model.mm_projector`,
// `model.vision_tower.vision_tower`) and what transformers 4.51, 4.52 and 5.18 write for
// `LlavaForConditionalGeneration`, CLIP, SigLIP and Gemma.
import { UserError } from '../errors.ts';

/**
 * `huggingface`: `vision_tower.`, `multi_modal_projector.`, `language_model.model.` (hub files up to 2025,
 * and `save_pretrained` of transformers 5); `transformers-5`: the same parts under `model.`, with
 * `lm_head.weight` outside (`state_dict()` since 4.52); `native`: original LLaVA, the language model's own
 * names plus `model.mm_projector.` and `model.vision_tower.vision_tower.`; `single`: one encoder or one
 * language model.
 */
export type Layout = 'huggingface' | 'transformers-5' | 'native' | 'single';

export interface NameMap {
  layout: Layout;
  /** Each tensor's name in the files, by our name, in the order given. */
  stored: ReadonlyMap<string, string>;
  /**
   * An output head stored in addition to the embedding that Gemma ties it to: its name in the files, and our
   * name of the embedding.
   */
  head?: { stored: string; embedding: string };
  /**
   * Tensors that older software wrote although they are computed, not learned; by their names in the files.
   */
  buffers: string[];
}

/** Patterns of names that only one layout has. */
const marks: readonly [Exclude<Layout, 'single'>, RegExp][] = [
  ['native', /^model\.(mm_projector|vision_tower\.vision_tower)\./],
  ['transformers-5', /^model\.(language_model\.|multi_modal_projector\.|vision_tower\.(?!vision_tower\.))/],
  ['huggingface', /^(language_model|multi_modal_projector|vision_tower)\./],
];

const buffer = /(^|\.)(embeddings\.position_ids|rotary_emb\.inv_freq)$/;

/** Layer n of an `nn.Sequential` of linear layers with activations between, as `linear_1`, `linear_2`, ... */
const projectorLayer = (_: string, index: string) => `multi_modal_projector.linear_${Number(index) / 2 + 1}.`;

function ownName(layout: Layout, name: string): string {
  switch (layout) {
    case 'native':
      // the order matters: whatever remains under `model.` belongs to the language model
      return name
        .replace(/^model\.image_newline$/, 'image_newline')
        .replace(/^model\.vision_tower\.vision_tower\./, 'vision_tower.')
        .replace(/^model\.mm_projector\.(\d*[02468])\./, projectorLayer)
        .replace(/^model\.mm_projector\.(weight|bias)$/, 'multi_modal_projector.linear_1.$1')
        .replace(/^model\.mm_projector\./, 'multi_modal_projector.')
        .replace(/^(model|lm_head)\./, 'language_model.$1.');
    case 'transformers-5':
      return name
        .replace(/^model\.language_model\./, 'language_model.model.')
        .replace(/^model\.(multi_modal_projector|vision_tower)\./, '$1.')
        .replace(/^lm_head\./, 'language_model.lm_head.');
    default:
      return name;
  }
}

/**
 * Our names of the tensors called `names` in the files. Throws UserError if they mix two layouts, or if two
 * of them would get the same name. Names that no layout knows stay as they are.
 */
export function mapNames(names: readonly string[]): NameMap {
  const found = marks.flatMap(([layout, mark]) => {
    const name = names.find((name) => mark.test(name));
    return name === undefined ? [] : [{ layout, name }];
  });
  if (found.length > 1)
    throw new UserError(
      `its tensors are named in two ways, ${JSON.stringify(found[0].name)} (${found[0].layout}) and ${JSON.stringify(found[1].name)} (${found[1].layout})`,
    );
  const layout = found[0]?.layout ?? 'single';

  const buffers = names.filter((name) => buffer.test(name));
  let pairs = names.filter((name) => !buffer.test(name)).map((name) => [ownName(layout, name), name]);
  const has = (wanted: string) => pairs.some(([own]) => own === wanted);
  const prefixed = (pattern: RegExp, prefix: string) => {
    pairs = pairs.map(([own, name]) => [own.replace(pattern, (start) => start + prefix), name]);
  };
  // transformers 5 omits the module `vision_model` of CLIP and SigLIP from the names that it saves; DINOv2
  // has no such module
  if (has('vision_tower.embeddings.patch_embedding.weight'))
    prefixed(/^vision_tower\.(?=(embeddings|pre_layrnorm|encoder|post_layernorm|head)\.)/, 'vision_model.');
  if (has('embeddings.patch_embedding.weight')) prefixed(/^(?=(embeddings|pre_layrnorm|encoder|post_layernorm|head)\.)/, 'vision_model.');
  // a Gemma that was saved without its output head
  if (has('embed_tokens.weight')) prefixed(/^(?=(embed_tokens|layers|norm)\.)/, 'model.');

  const stored = new Map<string, string>();
  for (const [own, name] of pairs) {
    const other = stored.get(own);
    if (other !== undefined) throw new UserError(`${JSON.stringify(other)} and ${JSON.stringify(name)} are names of one tensor`);
    stored.set(own, name);
  }
  for (const prefix of ['language_model.', '']) {
    const head = stored.get(`${prefix}lm_head.weight`);
    const embedding = `${prefix}model.embed_tokens.weight`;
    if (head === undefined || !stored.has(embedding)) continue;
    stored.delete(`${prefix}lm_head.weight`);
    return { layout, stored, head: { stored: head, embedding }, buffers };
  }
  return { layout, stored, buffers };
}

/**
 * What transformers 5 calls a tensor or module of a LLaVA, by our name of it: the inverse of
 * `transformers-5`. Names of a single language model or encoder stay, but for the module `vision_model`
 * that is gone.
 */
export function transformers5Name(name: string): string {
  return name
    .replace(/^language_model\.model\./, 'model.language_model.')
    .replace(/^(multi_modal_projector|vision_tower)\./, 'model.$1.')
    .replace(/^(model\.vision_tower\.|)vision_model\./, '$1');
}
