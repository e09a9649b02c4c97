import { ImgcredError, systemErrorCode } from '../errors/index.ts';
import { CHANNEL_HEADER } from '../protocol/index.ts';

/**
 * Hands requests on to the server on a Unix socket: a gateway's, for the calls that workers make to a scheduler in
 * another process. The token and the proof of who calls go with them and are checked there; credentials in the answers
 * are sealed to the worker.
 */
export function forwardTo(socket: string): { fetch(request: Request): Promise<Response> } {
  return {
    async fetch(request) {
      const { pathname, search } = new URL(request.url);
      try {
        const answer = await fetch(`http://scheduler${pathname}${search}`, {
          method: request.method,
          headers: forwarded(request.headers),
          body: await request.arrayBuffer(),
          signal: request.signal,
          redirect: 'error',
          timeout: false,
          unix: socket,
        } as RequestInit);
        const headers = { 'content-type': answer.headers.get('content-type') ?? 'application/octet-stream' };
        return new Response(await answer.arrayBuffer(), { status: answer.status, headers });
      } catch (cause) {
        throw new ImgcredError(
          'SERVER_UNREACHABLE',
          `the scheduler does not answer (${systemErrorCode(cause) ?? 'no connection'})`,
          { hint: 'start it: imgcred serve --role=scheduler on the gateway’s data directory', cause },
        );
      }
    },
  };
}

function forwarded(headers: Headers): Record<string, string> {
  const kept: Record<string, string> = { 'content-type': headers.get('content-type') ?? 'application/json' };
  for (const name of ['authorization', CHANNEL_HEADER]) {
    const value = headers.get(name);
    if (value !== null) kept[name] = value;
  }
  return kept;
}
