// What the runtime says when a device gives up, in one sentence.

import { UserError } from '../../errors.ts';

/** The device is gone, with all that was in its memory. */
export class DeviceLostError extends UserError {}

const REASONS: readonly [pattern: RegExp, error: (first: string) => UserError][] = [
  [
    /failed to get a webgpu (adapter|device)|no supported adapters/i,
    () =>
      new UserError(
        'device webgpu: there is no WebGPU adapter here (no GPU, or no driver of Vulkan, Metal or Direct3D 12); take device cpu',
      ),
  ],
  [
    /device (was |is )?(lost|destroyed|removed)|lost device|DEVICE_LOST/i,
    (first) => new DeviceLostError(`the WebGPU device was lost (${first}): its driver was restarted, or it ran out of memory`),
  ],
  [
    /previous error|out[ _]of[ _](device[ _])?memory|allocation size|max(imum)? ?(storage )?buffer ?(binding ?)?size/i,
    (first) =>
      new UserError(`the WebGPU device gives no buffer so large (${first}): make batches smaller or sequences shorter, or take device cpu`),
  ],
  [/(requires|support) f16/i, () => new UserError('the WebGPU adapter has no float16 (shader-f16): take float32, or device cpu')],
  [
    /fallback to CPU EP has been explicitly disabled/i,
    () => new UserError('a part of this graph has no kernel of WebGPU in ONNX Runtime: take device cpu'),
  ],
];

/** What went wrong on the device, for whoever reads it; other errors as they are. */
export function describedFailure(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof UserError) return error;
  const found = REASONS.find(([pattern]) => pattern.test(error.message));
  if (!found) return error;
  const described = found[1](firstLine(error.message));
  described.cause = error;
  return described;
}

/** The first line without places in the runtime's sources. */
const firstLine = (message: string) =>
  message
    .split('\n')[0]
    .replace(/^\S+\.cc:\d+ .*? was false\. /, '')
    .trim()
    .replace(/\.$/, '');
