// What a measurement of maps says, in words.

import { type Faithfulness, LEAST_GAIN } from './faithfulness.ts';

/** Whether maps of this part mean anything, in a sentence. */
export function verdict({ faithfulness }: { faithfulness?: Faithfulness }): string {
  if (!faithfulness) return 'Nobody has measured whether these maps mean anything: see docs/explain.md before reading them.';
  const { full, blank, scores } = faithfulness;
  const gain = `The picture is worth ${(full - blank).toFixed(2)} nats to it`;
  if (!scores)
    return `${gain}, less than ${LEAST_GAIN.toFixed(2)}: there is nothing for a map of the picture to explain, and these should not be read.`;
  const { deletion, insertion } = scores.relevancy;
  const won = (other: string) => [
    ...(deletion < scores[other].deletion ? ['deletion'] : []),
    ...(insertion > scores[other].insertion ? ['insertion'] : []),
  ];
  const beats = (other: string, name: string) => {
    const by = won(other);
    return by.length === 0 ? `no better than ${name}` : `better than ${name} by ${by.join(' and ')}${by.length === 1 ? ' alone' : ''}`;
  };
  const advice = won('random').length === 0 ? ' Do not read anything into it.' : '';
  return `${gain}. Its relevancy map is ${beats('random', 'a random order of patches')}, ${beats('attention', 'raw attention')}.${advice} This is one picture: there is no interval.`;
}
