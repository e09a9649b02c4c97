import { z } from 'zod';
import type { Secret } from '../credentials/index.ts';
import { RegistryError } from './errors.ts';
import { printableText } from './redact.ts';
import type { Reply } from './reply.ts';
import { parseRetryAfter } from './retry.ts';

/** What a server said with a status that is no success. Both texts are fit to print. */
export interface Failure {
  readonly status: number;
  readonly host: string;
  readonly code: string | undefined;
  readonly message: string | undefined;
  readonly retryAfterMs: number | undefined;
}

// An error body is read for its one sentence; registries' are a few hundred bytes.
const FAILURE_LIMIT = 64 * 1024;

const registryBody = z.object({
  errors: z
    .array(
      z.looseObject({
        code: z.unknown().optional(),
        message: z.unknown().optional(),
        detail: z.unknown().optional(),
      }),
    )
    .min(1),
});
const tokenBody = z.looseObject({
  error: z.unknown().optional(),
  error_description: z.unknown().optional(),
  details: z.unknown().optional(),
  message: z.unknown().optional(),
});

/** Reads the body of an answer that is no success: the specification's form, OAuth2's, an object store's XML. */
export async function readFailure(
  reply: Reply,
  nowMs: number,
  secrets: readonly Secret<string>[] = [],
): Promise<Failure> {
  let text = '';
  try {
    text = new TextDecoder().decode(await reply.bytes(FAILURE_LIMIT));
  } catch (error) {
    // The status is the news; a body that breaks or has no end adds nothing. A cancellation does.
    if (!(error instanceof RegistryError)) throw error;
  }
  const { code, message } = readBody(text);
  return {
    status: reply.status,
    host: reply.url.host,
    code: code === undefined ? undefined : printableText(code, secrets).slice(0, 64),
    message: message === undefined || message.trim() === '' ? undefined : printableText(message, secrets),
    retryAfterMs: parseRetryAfter(reply.headers.get('retry-after'), nowMs),
  };
}

function readBody(text: string): { code?: string | undefined; message?: string | undefined } {
  const json = tryJson(text);
  const listed = registryBody.safeParse(json).data?.errors[0];
  if (listed !== undefined) {
    const detail = typeof listed.detail === 'string' ? listed.detail : undefined;
    return { code: asText(listed.code), message: asText(listed.message) ?? detail };
  }
  const single = tokenBody.safeParse(json).data;
  if (single !== undefined) {
    const message = asText(single.error_description) ?? asText(single.details) ?? asText(single.message);
    return { code: asText(single.error), message };
  }
  const code = /<Code>([^<]{1,100})<\/Code>/.exec(text)?.[1];
  const message = /<Message>([^<]{1,500})<\/Message>/.exec(text)?.[1];
  // HTML is a page for people, from whatever stands in front of the registry.
  return { code, message: message ?? (/^\s*</.test(text) ? undefined : text) };
}

function asText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

function tryJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Whether the same request may succeed later. */
export function isTransientStatus(status: number): boolean {
  return status === 408 || status === 429 || (status >= 500 && status !== 501 && status !== 505);
}

/** `HTTP 403 DENIED: requested access to the resource is denied`. */
export function describeFailure({ status, code, message }: Failure): string {
  const words = [code, message].filter((word) => word !== undefined && word !== '').join(': ');
  return words === '' ? `HTTP ${status}` : `HTTP ${status} ${words}`;
}

/** The error for a status that is neither a success nor about credentials. `what` is what was asked for. */
export function failureError(failure: Failure, what: string): RegistryError {
  const { status, host, code, retryAfterMs } = failure;
  const common = { registry: host, httpStatus: status, registryCode: code };
  const said = describeFailure(failure);
  if (status === 404) {
    if (code === 'BLOB_UNKNOWN') {
      return new RegistryError('NOT_FOUND', `${host} has no ${what} (${said})`, common);
    }
    return new RegistryError('MANIFEST_UNKNOWN', `${host} has no ${what} (${said})`, {
      ...common,
      hint: 'check the name and the tag; some registries also say this when the credential may not see it',
    });
  }
  return new RegistryError('REGISTRY_ERROR', `${host} failed to give ${what} (${said})`, {
    ...common,
    transient: isTransientStatus(status),
    retryAfterMs,
    hint: status === 429 ? 'the registry limits the rate: wait, or log in to get a higher limit' : undefined,
  });
}
