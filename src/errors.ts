// The one error class whose message is meant for the user: the command line prints it without a stack trace.

/**
 * Something the user supplied is wrong: a file, a field, a shape. The message says what, where and what to
 * do, in one or two lines.
 */
export class UserError extends Error {
  override name = 'UserError';
}

/** What the operating system says, in the words of whoever named the file. */
const systemReasons: Record<string, string> = {
  EACCES: 'no permission',
  EBUSY: 'something else is using it',
  EDQUOT: 'the disk quota is used up',
  EEXIST: 'there is something already',
  EFBIG: 'a file cannot be that large there',
  EINVAL: 'it is no file that can be read or written so',
  EIO: 'the disk reports an error',
  EISDIR: 'it is a folder',
  ELOOP: 'its links lead in a circle',
  EMFILE: 'too many files are open',
  ENAMETOOLONG: 'the name is too long',
  ENFILE: 'too many files are open',
  ENODEV: 'there is no such device',
  ENOENT: 'there is no such file or folder',
  ENOSPC: 'the disk is full',
  ENOTDIR: 'what it is said to lie in is no folder',
  ENOTEMPTY: 'the folder is not empty',
  ENOTSUP: 'the disk cannot do that',
  ENXIO: 'nothing is there to be read',
  EPERM: 'it is not allowed',
  EROFS: 'the disk can only be read',
  ESTALE: 'the network disk has lost it',
  ETXTBSY: 'it is a program that is running',
  EXDEV: 'it lies on another disk',
  ERR_FS_FILE_TOO_LARGE: 'the file is too large to be read at once',
};

/**
 * Why an operation on a file failed, in words: for errors that the operating system reports; undefined for
 * others.
 */
export function systemReason(error: unknown): string | undefined {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' && Object.hasOwn(systemReasons, code) ? systemReasons[code] : undefined;
}

/** The same, and of any other error its message. */
export const reasonOf = (error: unknown): string => systemReason(error) ?? (error instanceof Error ? error.message : String(error));
