import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'tests/**/*.test.ts'],
    // ONNX Runtime takes both cores for one session; two files at a time would only slow each other down.
    maxWorkers: 2,
    // training starts a thread from dist/, which must be what the sources say
    globalSetup: 'scripts/setup.mjs',
    testTimeout: 120_000,
    hookTimeout: 120_000,
  },
});
