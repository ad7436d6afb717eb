// Where the data of a stage comes from, described in plain values, so that it can be opened in another
// thread.

import type { BatchSource } from './batch.ts';
import type { ContrastiveSource } from './sources/contrastive.ts';
import type { InstanceDiscriminationSource } from './sources/instance-discrimination.ts';
import type { LanguageModelSource } from './sources/language-model.ts';
import type { LlavaSource } from './sources/llava.ts';

export type SourceDescription = ContrastiveSource | LanguageModelSource | LlavaSource | InstanceDiscriminationSource;

/**
 * Opens a source in this thread. The same description gives the same batches, wherever and whenever it is
 * opened.
 */
export async function openSource(description: SourceDescription): Promise<BatchSource> {
  if (description.task === 'contrastive') return (await import('./sources/contrastive.ts')).contrastiveSource(description);
  if (description.task === 'language-model') return (await import('./sources/language-model.ts')).languageModelSource(description);
  if (description.task === 'instance-discrimination')
    return (await import('./sources/instance-discrimination.ts')).instanceDiscriminationSource(description);
  return (await import('./sources/llava.ts')).llavaSource(description);
}
