// The GPUs that Vulkan knows, by name: ONNX Runtime's WebGPU does not say which one it runs on. Layout of the
// structs: vulkan_core.h, VkInstanceCreateInfo and VkPhysicalDeviceProperties.

/** A GPU, or a program that stands in for one. */
export interface VulkanGpu {
  name: string;
  isSoftware: boolean;
}

const LIBRARIES: Partial<Record<NodeJS.Platform, string>> = { linux: 'libvulkan.so.1', win32: 'vulkan-1.dll' };
const INSTANCE_CREATE_INFO_BYTES = 64;
/** Rounded up. */
const PROPERTIES_BYTES = 1024;
const TYPE_OFFSET = 16;
const NAME_OFFSET = 20;
const NAME_BYTES = 256;
const TYPE_CPU = 4;

/**
 * GPUs in the order in which Vulkan lists them, the first of which is usually taken. None where there is no
 * Vulkan, or no koffi to call it.
 */
export async function vulkanGpus(): Promise<VulkanGpu[]> {
  const library = LIBRARIES[process.platform];
  if (library === undefined) return [];
  try {
    return listGpus((await import('koffi')).default, library);
  } catch {
    return [];
  }
}

function listGpus(koffi: typeof import('koffi').default, path: string): VulkanGpu[] {
  const library = koffi.load(path);
  const create = library.func('int vkCreateInstance(const void *info, const void *allocator, void *instance)');
  const destroy = library.func('void vkDestroyInstance(void *instance, const void *allocator)');
  const enumerate = library.func('int vkEnumeratePhysicalDevices(void *instance, void *count, void *devices)');
  const describe = library.func('void vkGetPhysicalDeviceProperties(void *device, void *properties)');

  const info = Buffer.alloc(INSTANCE_CREATE_INFO_BYTES);
  info.writeUInt32LE(1);
  const [handle, count] = [Buffer.alloc(8), Buffer.alloc(4)];
  if (create(info, null, handle) !== 0) return [];
  const instance = handle.readBigUInt64LE();
  try {
    enumerate(instance, count, null);
    const devices = Buffer.alloc(8 * count.readUInt32LE());
    enumerate(instance, count, devices);
    return Array.from({ length: count.readUInt32LE() }, (_, i) => {
      const properties = Buffer.alloc(PROPERTIES_BYTES);
      describe(devices.readBigUInt64LE(8 * i), properties);
      const [name] = properties.toString('utf8', NAME_OFFSET, NAME_OFFSET + NAME_BYTES).split('\0');
      return { name, isSoftware: properties.readUInt32LE(TYPE_OFFSET) === TYPE_CPU };
    });
  } finally {
    destroy(instance, null);
  }
}
