// One of the threads that make pixel values of picture files.

import type { ImageProcessorConfig } from '../images/processor.ts';
import { pixelValuesOf } from '../pretrained/processor.ts';
import { answerRequests } from './thread-side.ts';

answerRequests((_, [path, processor, bytes]) =>
  pixelValuesOf([path as string], processor as ImageProcessorConfig, bytes ? [bytes as Uint8Array] : undefined),
);
