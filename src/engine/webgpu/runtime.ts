// What is used of an ONNX Runtime package with a WebGPU provider: onnxruntime-node or, in a browser,
// onnxruntime-web. The package is handed in, so that this folder imports neither.

/** A tensor in host memory (`location` is `cpu`) or in a buffer of the device (`gpu-buffer`). */
export interface RuntimeTensor {
  readonly type: string;
  readonly dims: readonly number[];
  readonly location: string;
  /** Of a tensor in host memory. */
  readonly data: unknown;
  /** Of a tensor on the device. */
  readonly gpuBuffer: unknown;
  /** Gives the buffer back. */
  dispose(): void;
}

export interface RuntimeSession {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  /** Runs once; every output is returned, where the session was told to leave it. */
  run(feeds: Readonly<Record<string, RuntimeTensor>>): Promise<Readonly<Record<string, RuntimeTensor>>>;
  release(): Promise<void>;
}

export interface Runtime {
  readonly InferenceSession: { create(model: Uint8Array, options: Readonly<Record<string, unknown>>): Promise<RuntimeSession> };
  readonly Tensor: {
    new (type: string, data: unknown, dims: readonly number[]): RuntimeTensor;
    /** A tensor over a buffer that belongs to another one. */
    fromGpuBuffer(buffer: unknown, options: { dataType: string; dims: readonly number[] }): RuntimeTensor;
  };
}
