// llama.cpp's image encoder (tools/mtmd) for `npm run bench -- generate`, through @fugood/llama.node. The
// package has no call that only encodes: an image is part of a completion, and how long encoding alone took
// is printed on stderr, which llama-cpp.ts reads. A language model of one layer stands behind the encoder, so
// that a completion costs little else.

import { benchShapes } from '../generate/shapes.ts';
import { picture, seconds, serve } from './generate-peer.ts';
import { peerVersion, requirePeer } from './install.ts';

/** What is used of @fugood/llama.node. */
interface Context {
  getSystemInfo(): string;
  initMultimodal(options: object): boolean;
  clearCache(): void;
  completion(options: object): Promise<unknown>;
}

interface LlamaNode {
  loadModel(options: object): Promise<Context>;
  toggleNativeLog(on: boolean): Promise<void>;
}

let context: Context;
let size: number;
/** Pictures encoded so far: no two are the same, since the library keeps what it has seen. */
let shown = 0;

/**
 * A picture as a PPM file in a data URL: the smallest format that stb_image, which decodes it there, reads.
 */
function dataUrl(index: number): string {
  const pixels = Uint8Array.from(picture(index, size), (value) => Math.round(127.5 * (1 + value)));
  const file = Buffer.concat([Buffer.from(`P6 ${size} ${size} 255\n`), pixels]);
  return `data:image/x-portable-pixmap;base64,${file.toString('base64')}`;
}

await serve({
  async load({ shape, files, threads }) {
    const library = requirePeer<LlamaNode>('@fugood/llama.node');
    // llama.cpp prints nothing else
    await library.toggleNativeLog(true);
    size = benchShapes[shape].config.vision_config.image_size;
    context = await library.loadModel({ model: files.carrier, n_ctx: 1024, n_threads: threads, n_gpu_layers: 0 });
    if (!context.initMultimodal({ path: files.mmproj, use_gpu: false })) throw new Error(`@fugood/llama.node cannot read ${files.mmproj}`);
    const info = context.getSystemInfo().trim();
    const slow = process.arch === 'x64' && !info.includes('AVX');
    return {
      version: `@fugood/llama.node ${peerVersion('@fugood/llama.node')}`,
      notes: [`encoder: ${info}${slow ? '; its x64 binary is built without AVX, so that its time is no measure of llama.cpp' : ''}`],
      incomparable: slow ? ['encode'] : [],
    };
  },
  /** Whole completions: an upper bound, for which llama-cpp.ts has better. */
  async encode(images) {
    const urls = Array.from({ length: images }, () => dataUrl(shown++));
    const time = await seconds(async () => {
      for (const url of urls) {
        context.clearCache();
        await context.completion({ prompt: '<__media__>a', media_paths: [url], n_predict: 1, temperature: 0 });
      }
    });
    return time / images;
  },
  prefill: () => Promise.reject(new Error('this process only encodes images')),
  decode: () => Promise.reject(new Error('this process only encodes images')),
});
