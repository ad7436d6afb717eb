// Which concepts may be learned from and which are kept for the unseen-concepts split. One fixed division for
// every recipe: an encoder that was pretrained on a held-out concept would make the split worthless.

import { UserError } from '../../errors.ts';
import { hashString } from '../../random.ts';
import { type EmojiConcepts, sharedConcepts } from './glyphs.ts';

/** The artist that no stage of training sees, unless told otherwise. */
export const defaultHeldOutArtist = 'twemoji';

const unseenCount = 40;
/** Larger families (trains, office buildings, moons) stay: holding one out would take a whole kind away. */
const largestUnseenFamily = 5;

export interface ConceptSplit {
  /**
   * Drawn by all artists, and learned: scenes for training and for the unseen-scenes and unseen-artist
   * splits.
   */
  seen: number[];
  /** Drawn by all artists, and held out in whole families. */
  unseen: number[];
  /**
   * Everything outside the held-out families, by whichever artists drew it: what an encoder may be pretrained
   * on.
   */
  pretraining: number[];
}

/** Families in the order of their names' hashes are held out until about 40 concepts are. */
export function splitConcepts(emoji: EmojiConcepts): ConceptSplit {
  const familyOf = (index: number) => emoji.concepts[index].family;
  const shared = sharedConcepts(emoji);
  const order = (family: string) => hashString(`held out:${family}`);
  const byHash = [...new Set(shared.map(familyOf))].sort((a, b) => order(a) - order(b) || (a < b ? -1 : 1));
  const heldOut = new Set<string>();
  let count = 0;
  for (const family of byHash) {
    const size = shared.filter((index) => familyOf(index) === family).length;
    if (count >= unseenCount) break;
    if (size > largestUnseenFamily) continue;
    heldOut.add(family);
    count += size;
  }
  return {
    seen: shared.filter((index) => !heldOut.has(familyOf(index))),
    unseen: shared.filter((index) => heldOut.has(familyOf(index))),
    pretraining: [...emoji.concepts.keys()].filter((index) => !heldOut.has(familyOf(index))),
  };
}

/**
 * The artists to learn from: all but the one that is held out. Throws UserError when that one is none of
 * them.
 */
export function trainingArtists({ artists }: EmojiConcepts, heldOut: string): string[] {
  if (!artists.includes(heldOut)) throw new UserError(`held-out artist ${heldOut}: the artists are ${artists.join(', ')}`);
  return artists.filter((artist) => artist !== heldOut);
}
