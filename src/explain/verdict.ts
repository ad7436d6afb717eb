// What a measurement of maps says, in words.

import { MAP_NAMES, type MapKind } from './explanation.ts';
import { type Faithfulness, LEAST_GAIN } from './faithfulness.ts';

/** Whether maps of this part mean anything, in a sentence. */
export function verdict({ faithfulness }: { faithfulness?: Faithfulness }, kind: MapKind = 'relevancy'): string {
  if (!faithfulness) return 'Nobody has measured whether these maps mean anything: see docs/explain.md before reading them.';
  const { full, blank, scores } = faithfulness;
  const gain = `The picture is worth ${(full - blank).toFixed(2)} nats to it`;
  if (!scores)
    return `${gain}, less than ${LEAST_GAIN.toFixed(2)}: there is nothing for a map of the picture to explain, and these should not be read.`;
  const { deletion, insertion } = scores[kind];
  const won = (other: string) => [
    ...(deletion < scores[other].deletion ? ['deletion'] : []),
    ...(insertion > scores[other].insertion ? ['insertion'] : []),
  ];
  const beats = (other: string, name: string) => {
    const by = won(other);
    return by.length === 0 ? `no better than ${name}` : `better than ${name} by ${by.join(' and ')}${by.length === 1 ? ' alone' : ''}`;
  };
  const advice = won('random').length === 0 ? ' Do not read anything into it.' : '';
  const attention = kind === 'attention' ? '' : `, ${beats('attention', 'raw attention')}`;
  return `${gain}. Its map of ${MAP_NAMES[kind]} is ${beats('random', 'a random order of patches')}${attention}.${advice} This is one picture: there is no interval.`;
}
