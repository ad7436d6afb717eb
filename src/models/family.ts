// What a family of models says of itself, in its own file: vision.ts and language.ts list the families, and
// everything else asks the lists.

import type { Tensor } from '../graph/tensor.ts';
import type { Parameters } from '../nn/parameters.ts';
import type { LanguageInputs, LanguageOutputs, Rope } from './decoder.ts';

/** A family of vision encoders. `Config` is what its schema gives. */
export interface VisionFamily<Config> {
  /** For people. */
  name: string;
  /** Rows before those of the patches: a class token. */
  prefixTokens: number;
  /** Whether pictures may have another size than `image_size`. */
  takesAnySize: boolean;
  /**
   * Hidden states up to block `layers` (default all): pixelValues float32 [images, 3, size, size] -> each
   * [images, prefixTokens + patches, hidden]; entry 0 is the embeddings, entry n follows block n.
   */
  hiddenStates(p: Parameters, config: Config, pixelValues: Tensor, layers?: number): Tensor[];
  /** Asks for the parameters behind the last block, whose hidden state is `last`: LLaVA does not run them. */
  afterBlocks(p: Parameters, config: Config, last: Tensor): void;
}

/** A family of language models. `Config` is what its schema gives. */
export interface LanguageFamily<Config> {
  /** For people. */
  name: string;
  /** Hugging Face's `architectures` entry. */
  architecture: string;
  /** The decoder stack; see `decoder` for shapes. */
  stack(p: Parameters, config: Config, inputs: LanguageInputs): LanguageOutputs;
  /** The RoPE of its layers; of the windowed ones where they have their own. */
  rope(config: Config, type?: 'full_attention' | 'sliding_attention'): Rope;
  /** Soft cap on the logits; undefined where there is none. */
  finalSoftcap?(config: Config): number | undefined;
  /**
   * Whether transformers up to 4.57 multiplied every row that came in by sqrt(hidden), image rows too
   * (docs/decisions.md 8).
   */
  scaledImageRows?: boolean;
}
