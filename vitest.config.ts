import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/** What crosses rooms takes longest, so it comes first: at the end, both workers are done at about one time. */
class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const crossesRooms = ({ moduleId }: TestSpecification) => !moduleId.includes('/src/');
    return [...sorted.filter(crossesRooms), ...sorted.filter((file) => !crossesRooms(file))];
  }
}

/** They replace modules, so they need modules of their own. */
const MOCKING = ['src/cli/init.test.ts', 'src/train/checks.test.ts'];
const TIMEOUTS = { testTimeout: 120_000, hookTimeout: 120_000 };

export default defineConfig({
  test: {
    // a third of the time of two files goes into waiting for processes, disks and browsers: a third file fills it
    maxWorkers: 3,
    sequence: { sequencer: SlowestFirst },
    globalSetup: 'tests/global-setup.mjs',
    projects: [
      { test: { name: 'across', include: ['tests/**/*.test.ts', ...MOCKING], ...TIMEOUTS } },
      // modules are loaded once for all files of a worker, which takes 40 % less time
      { test: { name: 'rooms', include: ['src/**/*.test.ts'], exclude: MOCKING, isolate: false, ...TIMEOUTS } },
    ],
  },
});
