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

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'tests/**/*.test.ts'],
    // a third of the time of two files goes into waiting for processes, disks and browsers: a third file fills it
    maxWorkers: 3,
    sequence: { sequencer: SlowestFirst },
    globalSetup: 'tests/global-setup.mjs',
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
