import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'tests/**/*.test.ts'],
    // ONNX Runtime takes both cores for one session; two files at a time would only slow each other down.
    maxWorkers: 2,
    testTimeout: 60_000,
  },
});
