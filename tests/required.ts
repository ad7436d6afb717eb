// Software that some tests want and that need not be installed: they are skipped without it, with a word
// about it, or fail where LLAVA_GEMMA_REQUIRE names it (mpi, chromium, webgpu, peers, python; several with
// commas).

/** Throws where `what` is required; else says why tests are skipped. */
export function skipped(what: 'mpi' | 'chromium' | 'webgpu' | 'peers' | 'python', why: string): void {
  if (process.env.LLAVA_GEMMA_REQUIRE?.split(',').includes(what)) throw new Error(`LLAVA_GEMMA_REQUIRE names ${what}: ${why}`);
  console.warn(`skipped: ${why}`);
}
