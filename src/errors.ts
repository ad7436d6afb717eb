// The one error class whose message is meant for the user: the command line prints it without a stack trace.

/**
 * Something the user supplied is wrong: a file, a field, a shape. The message says what, where and what to
 * do, in one or two lines.
 */
export class UserError extends Error {
  override name = 'UserError';
}
