import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { z } from 'zod';
import { selfCommand, VERSION } from '../config/index.ts';
import { ImgcredError, isErrorCode, systemErrorCode } from '../errors/index.ts';
import {
  healthSchema,
  type MountRequest,
  type MountServerSettings,
  type MountView,
  mountViewSchema,
} from './messages.ts';
import { READY_LINE } from './server.ts';

const errorBody = z.object({
  error: z.object({ code: z.string(), message: z.string(), hint: z.string().optional() }),
});
const START_TIMEOUT_MS = 20_000;

/** A worker's end of the socket to its mount server. */
export class MountClient {
  readonly #socket: string;

  constructor(socket: string) {
    this.#socket = socket;
  }

  mount(request: MountRequest): Promise<MountView> {
    return this.#call('POST', '/mounts', mountViewSchema, request);
  }

  resume(request: MountRequest & { holder_pid: number; holder_descriptor: number }): Promise<MountView> {
    return this.#call('POST', '/resume', mountViewSchema, request);
  }

  async useCredential(mountId: string, imageCredentials: string | undefined): Promise<void> {
    const body = imageCredentials === undefined ? {} : { image_credentials: imageCredentials };
    await this.#call('PUT', `/mounts/${mountId}/credential`, z.object({}), body);
  }

  show(mountId: string): Promise<MountView> {
    return this.#call('GET', `/mounts/${mountId}`, mountViewSchema);
  }

  async list(): Promise<MountView[]> {
    return (await this.#call('GET', '/mounts', z.object({ mounts: z.array(mountViewSchema) }))).mounts;
  }

  async unmount(mountId: string): Promise<void> {
    await this.#call('DELETE', `/mounts/${mountId}`, z.object({}));
  }

  async shutdown(): Promise<void> {
    await this.#call('POST', '/shutdown', z.object({}));
  }

  /** What answers on the socket; undefined where nobody does. */
  async health(): Promise<z.infer<typeof healthSchema> | undefined> {
    try {
      return await this.#call('GET', '/healthz', healthSchema);
    } catch (thrown) {
      if (thrown instanceof ImgcredError && thrown.code === 'SERVER_UNREACHABLE') return undefined;
      throw thrown;
    }
  }

  async #call<T>(method: string, path: string, schema: z.ZodType<T>, body?: unknown): Promise<T> {
    let response: Response;
    try {
      response = await fetch(`http://mounts${path}`, {
        method,
        unix: this.#socket,
        // A proof of access may wait for a slow registry; the registry client has the deadlines.
        timeout: false,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      } as RequestInit);
    } catch (cause) {
      throw new ImgcredError(
        'SERVER_UNREACHABLE',
        `the mount server does not answer (${systemErrorCode(cause) ?? 'no connection'})`,
        {
          hint: 'see mount-server.log in the data directory',
          cause,
        },
      );
    }
    const answer: unknown = await response.json();
    if (response.ok) return schema.parse(answer);
    const { code, message, hint } = errorBody.parse(answer).error;
    throw new ImgcredError(isErrorCode(code) ? code : 'INTERNAL', message, { hint });
  }
}

/** A mount server that was found running, or has been started. */
export interface FoundMountServer {
  readonly client: MountClient;
  readonly pid: number;
  readonly adopted: boolean;
}

/**
 * Connects to the mount server on the settings' socket, or starts one that outlives this process. One of another
 * version goes on as long as it has mounts: its readers must not notice an upgrade.
 *
 * @throws ImgcredError MOUNT_FAILED when it does not come up, with the last line that it wrote
 */
export async function findOrStartMountServer(
  settings: MountServerSettings,
  logFile: string,
): Promise<FoundMountServer> {
  const client = new MountClient(settings.socket);
  const health = await client.health();
  if (health !== undefined) {
    if (health.version === VERSION || health.mounts > 0) return { client, pid: health.pid, adopted: true };
    await client.shutdown();
    while ((await client.health()) !== undefined) await Bun.sleep(10);
  }
  const pid = await startProcess(settings, logFile);
  return { client, pid, adopted: false };
}

async function startProcess(settings: MountServerSettings, logFile: string): Promise<number> {
  const log = openSync(logFile, 'a', 0o600);
  const [command = '', ...args] = selfCommand();
  const child = spawn(command, [...args, 'internal-mount-server'], {
    detached: true,
    stdio: ['pipe', 'pipe', log],
    // Nothing of the caller's environment is needed there but this; least of all what credentials came in.
    env: childEnvironment(),
    cwd: '/',
  });
  closeSync(log);
  const ready = new Promise<void>((resolve, reject) => {
    let seen = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      seen += chunk.toString();
      if (seen.includes(READY_LINE)) resolve();
    });
    child.on('error', (cause) => reject(startFailed(`it can't be started: ${cause.message}`, cause)));
    child.on('exit', (code, signal) =>
      reject(startFailed(`it ended at once (${signal ?? `exit code ${code}`})`)),
    );
    setTimeout(() => reject(startFailed('it is not ready in time')), START_TIMEOUT_MS).unref();
  });
  child.stdin?.end(JSON.stringify(settings));
  try {
    await ready;
  } catch (thrown) {
    child.kill('SIGKILL');
    throw thrown;
  }
  child.stdout?.destroy();
  child.unref();
  return child.pid ?? -1;

  function startFailed(reason: string, cause?: unknown): ImgcredError {
    return new ImgcredError('MOUNT_FAILED', `the mount server did not start: ${reason}`, {
      hint: `see ${logFile}`,
      cause,
    });
  }
}

const PASSED_ON = [
  'PATH',
  'HOME',
  'LANG',
  'TMPDIR',
  'HTTP_PROXY',
  'HTTPS_PROXY',
  'ALL_PROXY',
  'NO_PROXY',
  'http_proxy',
  'https_proxy',
  'all_proxy',
  'no_proxy',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
];

function childEnvironment(): Record<string, string> {
  return Object.fromEntries(
    PASSED_ON.flatMap((name) => {
      const value = process.env[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
