// Judges: what reads free-form answers where no rule can, a language model behind a small interface.

/** Answers one prompt. */
export interface Judge {
  /** As reports name it: `rules`, `local:assets/models/tiny-llava`, `https://host/v1 gpt-4-0613`. */
  readonly name: string;
  /** The text that the judge replies, greedy. */
  reply(prompt: string, options: { maxTokens: number; signal?: AbortSignal }): Promise<string>;
}
