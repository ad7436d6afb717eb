// Errors in the form that clients of OpenAI's API know: {error: {message, type, param, code}}.

/** Statuses that are answered, with the type that OpenAI gives them. */
const TYPES = {
  400: 'invalid_request_error',
  401: 'authentication_error',
  403: 'permission_error',
  404: 'invalid_request_error',
  405: 'invalid_request_error',
  408: 'invalid_request_error',
  413: 'invalid_request_error',
  415: 'invalid_request_error',
  429: 'rate_limit_error',
  431: 'invalid_request_error',
  500: 'server_error',
  503: 'service_unavailable_error',
} as const;

export type ErrorStatus = keyof typeof TYPES;

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
}

export interface ErrorDetails {
  /** The field that is wrong, such as `messages[0].content`. */
  param?: string;
  code?: string;
  /** Seconds after which the client should try again. */
  retryAfter?: number;
}

/** An answer that is an error. */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly status: ErrorStatus;
  readonly details: ErrorDetails;

  constructor(status: ErrorStatus, message: string, details: ErrorDetails = {}) {
    super(message);
    this.status = status;
    this.details = details;
  }

  get body(): ErrorBody {
    const { param = null, code = null } = this.details;
    return { error: { message: this.message, type: TYPES[this.status], param, code } };
  }

  get headers(): Record<string, string> {
    const { retryAfter } = this.details;
    return {
      ...(retryAfter === undefined ? {} : { 'Retry-After': String(retryAfter) }),
      ...(this.status === 401 ? { 'WWW-Authenticate': 'Bearer' } : {}),
    };
  }

  /** The response as it is sent. */
  response(): Response {
    return Response.json(this.body, { status: this.status, headers: this.headers });
  }
}

/** What a client is told of an error that is none of its own: no path and no stack leaves the server. */
export function toApiError(error: unknown): ApiError {
  return error instanceof ApiError ? error : new ApiError(500, 'the server had an error while it answered', { code: 'internal_error' });
}
