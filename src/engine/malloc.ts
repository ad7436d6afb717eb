// glibc keeps freed pieces of up to 32 MB for later, between others that live: a training step that is meant
// to take little memory takes half as much again. mallopt(3) makes it give back what is freed.

const M_TRIM_THRESHOLD = -1;
const M_MMAP_THRESHOLD = -3;
/** Pieces of more bytes than this are given back to the system one by one. */
const LARGE = 2 ** 20;

let asked: Promise<boolean> | undefined;

/**
 * Has the process give back freed memory from now on, where the C library is glibc and koffi, an optional
 * dependency, is there to call it. Returns whether it does.
 */
export function giveBackFreedMemory(): Promise<boolean> {
  asked ??= ask();
  return asked;
}

async function ask(): Promise<boolean> {
  if (process.platform !== 'linux') return false;
  try {
    const { default: koffi } = await import('koffi');
    const mallopt = koffi.load('libc.so.6').func('int mallopt(int, int)');
    return [M_MMAP_THRESHOLD, M_TRIM_THRESHOLD].every((option) => mallopt(option, LARGE) === 1);
  } catch {
    // another C library, or no koffi for this machine: it takes more memory, and that is all
    return false;
  }
}
