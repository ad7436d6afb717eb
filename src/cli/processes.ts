// A command as one of several processes that a launcher has started: what goes wrong in one of them is said
// once, and ends all.

import { setTimeout as sleep } from 'node:timers/promises';
import { alone, type Communicator, StoppedTogether } from '../mpi/communicator.ts';
import { type Launch, LaunchError, launchOf } from '../mpi/launcher.ts';
import { openCommunicator } from '../mpi/open.ts';
import { nameOf } from '../train/processes.ts';
import { describeFailure } from './failure.ts';
import { InterruptedError } from './interrupt.ts';

/** Milliseconds that process `rank` leaves to those before it for saying the same, and for ending it. */
const precedence = (rank: number) => (rank === 0 ? 0 : Math.min(2500 + 250 * rank, 8000));

/**
 * Runs `body` with the processes that were launched with this one, of which another that says nothing for
 * `limit` seconds ends all.
 */
export async function inProcesses(limit: number, body: (communicator: Communicator) => Promise<void>): Promise<void> {
  const launch = launchOf();
  if (launch === undefined) return body(alone);
  let communicator: Communicator | undefined;
  try {
    communicator = await openCommunicator(launch, { limit, onSilence: (sentence) => console.error(`error: ${sentence}`) });
    await body(communicator);
    await communicator.close();
  } catch (error) {
    if (communicator && error instanceof InterruptedError && error.cause instanceof StoppedTogether) {
      await communicator.close();
      throw communicator.rank === 0 ? error : new InterruptedError('');
    }
    await endAll(error, launch, communicator);
  }
}

async function endAll(error: unknown, launch: Launch, communicator: Communicator | undefined): Promise<never> {
  const { rank } = launch;
  await sleep(precedence(rank));
  const { text, code } = describeFailure(error);
  const speaker = rank === 0 || text.includes(nameOf(launch)) ? '' : `${nameOf(launch)}: `;
  if (rank === 0 || !(error instanceof LaunchError)) console.error(`${speaker}${text}`);
  communicator?.abort(code);
  process.exit(code);
}
