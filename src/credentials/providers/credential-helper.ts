import type { CredentialMap } from '../credential-map.ts';
import { credentialsOfEntry } from '../docker-config.ts';
import { CredentialError } from '../error.ts';
import { isJsonObject, parseJson } from '../json-input.ts';

export interface HelperOptions {
  /** The helper's environment, in which it is also looked for (`PATH`); the process's own by default. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Milliseconds; 30 s by default, since some helpers ask a cloud. */
  readonly timeout?: number;
}

// The helper's name is a part of a file name: no path may come in by it.
const HELPER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;
const LARGEST_ANSWER = 1024 * 1024;
const NOT_FOUND = 'credentials not found in native keychain';

/**
 * Asks `docker-credential-HELPER` for the login of a server: `get`, the server's address on standard input, JSON
 * on standard output. No shell takes part.
 *
 * @returns `undefined` when the helper has none
 * @throws CredentialError when it is missing, fails, hangs or answers nonsense
 * @see https://github.com/docker/docker-credential-helpers#development
 */
export async function runCredentialHelper(
  helper: string,
  server: string,
  options: HelperOptions = {},
  signal?: AbortSignal,
): Promise<CredentialMap | undefined> {
  const program = `docker-credential-${helper}`;
  if (!HELPER_NAME.test(helper)) {
    throw new CredentialError('INVALID_CREDENTIALS', server, 'not the name of a credential helper');
  }
  signal?.throwIfAborted();
  const environment = options.environment ?? process.env;
  const path = Bun.which(program, { PATH: environment.PATH ?? '' });
  if (path === null) {
    const hint = `install ${program}, or give the login itself`;
    throw new CredentialError('INVALID_CREDENTIALS', server, `${program} is not on PATH`, { hint });
  }
  const timeout = AbortSignal.timeout(options.timeout ?? 30_000);
  const stop = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
  const child = Bun.spawn([path, 'get'], {
    env: { ...environment },
    stdin: Buffer.from(server),
    stdout: 'pipe',
    stderr: 'ignore',
    signal: stop,
    killSignal: 'SIGKILL',
    maxBuffer: LARGEST_ANSWER,
  });
  const stopped = Promise.withResolvers<never>();
  const onStop = () => stopped.reject(stop.reason);
  stop.addEventListener('abort', onStop, { once: true });
  try {
    // A grandchild may hold the pipe open after the helper was killed: what stops it also ends the wait.
    const [output, status] = await Promise.race([
      Promise.all([new Response(child.stdout).text(), child.exited]),
      stopped.promise,
    ]);
    return readAnswer(program, server, output, status);
  } catch (error) {
    signal?.throwIfAborted();
    if (timeout.aborted)
      throw new CredentialError('REGISTRY_ERROR', server, `${program} did not answer in time`);
    throw error;
  } finally {
    stop.removeEventListener('abort', onStop);
    child.kill('SIGKILL');
  }
}

function readAnswer(
  program: string,
  server: string,
  output: string,
  status: number,
): CredentialMap | undefined {
  if (status !== 0) {
    // Its message goes to standard output, where a login may stand too: only this one is told apart.
    if (output.trim() === NOT_FOUND) return undefined;
    throw new CredentialError('REGISTRY_ERROR', server, `${program} failed with status ${status}`, {
      hint: `try: echo ${server} | ${program} get`,
    });
  }
  const answer = parseJson(output);
  if (!isJsonObject(answer))
    throw new CredentialError('REGISTRY_ERROR', server, `${program} did not answer JSON`);
  return credentialsOfEntry(server, answer);
}
