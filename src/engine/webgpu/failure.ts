// What the runtime says when a device gives up, in one sentence.

import { UserError } from '../../errors.ts';

/** The device did not do what a run asked for: what the run was to write may be written in part. */
export class DeviceError extends UserError {}

/** The device is gone, with all that was in its memory. */
export class DeviceLostError extends DeviceError {}

const REASONS: readonly [pattern: RegExp, error: (first: string) => DeviceError][] = [
  [
    /failed to get a webgpu (adapter|device)|no supported adapters|no available backend found|backend not found/i,
    () =>
      new DeviceError(
        'device webgpu: there is no WebGPU adapter here (no GPU, or no driver of Vulkan, Metal or Direct3D 12); take device cpu',
      ),
  ],
  [
    /device\]? (was |is )?(lost|destroyed|removed)|lost device|DEVICE_LOST/i,
    (first) => new DeviceLostError(`the WebGPU device was lost (${first}): its driver was restarted, or it ran out of memory`),
  ],
  [
    /narrowing_error|previous error|out[ _]of[ _](device[ _])?memory|allocation size|too many storage buffers|max(imum)? ?(storage )?buffer ?(binding ?)?size/i,
    () =>
      new DeviceError(
        'the WebGPU device gives no buffer as large as this needs: make batches smaller or sequences shorter, or take device cpu',
      ),
  ],
  [/(requires|support) f16/i, () => new DeviceError('the WebGPU adapter has no float16 (shader-f16): take float32, or device cpu')],
  [
    /fallback to CPU EP has been explicitly disabled/i,
    () => new DeviceError('a part of this graph has no kernel of WebGPU in ONNX Runtime: take device cpu'),
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
