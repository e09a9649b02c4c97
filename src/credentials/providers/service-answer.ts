import { CredentialError } from '../error.ts';

/** What `fetch` is here: injectable, without the runtime's extras. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

const LARGEST_ANSWER = 1024 * 1024;

/**
 * POSTs to a provider's token service and reads its JSON answer. Redirects are refused: the request carries a
 * secret.
 *
 * @throws CredentialError `REGISTRY_UNREACHABLE`, `CREDENTIALS_REFUSED` (400, 401, 403) or `REGISTRY_ERROR`
 */
export async function postForJson(
  registry: string,
  service: string,
  url: string,
  init: { readonly headers: Readonly<Record<string, string>>; readonly body: string },
  fetch: Fetch,
  signal: AbortSignal,
): Promise<object> {
  let response: Response;
  let text: string;
  try {
    response = await fetch(url, { method: 'POST', redirect: 'error', ...init, signal });
    text = new TextDecoder().decode(await readAnswer(response));
  } catch (cause) {
    throw new CredentialError('REGISTRY_UNREACHABLE', registry, `${service} could not be reached`, { cause });
  }
  if (!response.ok) throw refusedBy(registry, service, response.status, errorCode(text));
  const answer = parseObject(text);
  if (answer === undefined)
    throw new CredentialError('REGISTRY_ERROR', registry, `${service} did not answer JSON`);
  return answer;
}

/** An answer's body, or none of it where it is longer than any honest one. */
export async function readAnswer({ body }: Response): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const part of body ?? []) {
    length += part.length;
    if (length > LARGEST_ANSWER) return new Uint8Array(0);
    parts.push(part);
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** The error for a service's status; `code` is the service's own word. */
export function refusedBy(registry: string, service: string, status: number, code?: string): CredentialError {
  const word = code === undefined ? '' : `, ${code}`;
  if (status === 400 || status === 401 || status === 403) {
    const hint = 'the credentials may be wrong, expired or without the right to pull';
    return new CredentialError(
      'CREDENTIALS_REFUSED',
      registry,
      `${service} refused them (${status}${word})`,
      { hint },
    );
  }
  return new CredentialError('REGISTRY_ERROR', registry, `${service} failed (${status}${word})`);
}

/** The text property `name` of a service's answer. */
export function textOf(answer: object, name: string): string | undefined {
  const value = Object.entries(answer).find(([key]) => key === name)?.[1];
  return typeof value === 'string' && value !== '' ? value : undefined;
}

export function parseObject(text: string): object | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}

/** The service's own word for what went wrong: a short code, never its free text, which may quote the request. */
function errorCode(text: string): string | undefined {
  const answer = parseObject(text);
  if (answer === undefined) return undefined;
  const first =
    'errors' in answer && Array.isArray(answer.errors) ? parseErrorItem(answer.errors[0]) : undefined;
  const code = first ?? textOf(answer, '__type') ?? textOf(answer, 'code') ?? textOf(answer, 'error');
  const short = code?.split('#').at(-1);
  return short !== undefined && /^[\w.-]{1,80}$/.test(short) ? short : undefined;
}

function parseErrorItem(item: unknown): string | undefined {
  return typeof item === 'object' && item !== null ? textOf(item, 'code') : undefined;
}
